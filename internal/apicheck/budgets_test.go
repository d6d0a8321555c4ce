package apicheck

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"sort"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The budgets of what a reader can hold in mind. What is above one today is listed with its number, which only shrinks.
const (
	maxMethods = 45 // of a type
	maxBools   = 4  // of a struct that is no configuration and no message
	maxMutexes = 6  // fields of a package
)

// sources is the product's code, parsed, by folder.
func sources(t *testing.T) map[string][]*ast.File {
	out := map[string][]*ast.File{}
	require.NoError(t, filepath.WalkDir("../..", func(name string, d fs.DirEntry, err error) error {
		rel, _ := filepath.Rel("../..", name)
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "bench" || d.Name() == "interop" || d.Name() == "tools" || d.Name() == "testdata" || strings.HasPrefix(d.Name(), ".") && rel != "."):
			return filepath.SkipDir
		case d.IsDir() || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go"):
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments)
		out[filepath.Dir(rel)] = append(out[filepath.Dir(rel)], f)
		return err
	}))
	return out
}

// within compares what is counted with a budget, and with what is allowed above it today.
func within(t *testing.T, what string, budget int, counted, above map[string]int) {
	t.Helper()
	for name, n := range counted {
		if limit := max(budget, above[name]); n > limit {
			t.Errorf("%s has %d %s, the budget is %d", name, n, what, limit)
		}
	}
	for name, n := range above {
		if counted[name] < n {
			t.Errorf("%s has %d %s now: lower the %d that are listed for it", name, counted[name], what, n)
		}
	}
}

// TestMethodBudget: no type does everything.
func TestMethodBudget(t *testing.T) {
	counted := map[string]int{}
	for dir, files := range sources(t) {
		for _, f := range files {
			for _, d := range f.Decls {
				if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv != nil {
					counted[dir+"."+receiverName(fn.Recv)]++
				}
			}
		}
	}
	within(t, "methods", maxMethods, counted, map[string]int{
		"cmd/cartage.cli":                            106,
		"datatransfer/impl.Manager":                  127,
		"datatransfer/transport/graphsync.Transport": 110,
		"internal/node.Node":                         107,
		"internal/node.Service":                      103,
		"retrievalmarket/impl.Client":                76,
		"retrievalmarket/impl.Provider":              70,
	})
}

func receiverName(l *ast.FieldList) string {
	t := l.List[0].Type
	if s, ok := t.(*ast.StarExpr); ok {
		t = s.X
	}
	switch x := t.(type) {
	case *ast.IndexExpr:
		t = x.X
	case *ast.IndexListExpr:
		t = x.X
	}
	if id, ok := t.(*ast.Ident); ok {
		return id.Name
	}
	return "?"
}

// TestBoolBudget: a struct remembers facts, not conclusions. Configurations, options, flags and messages of the API are what people choose or read.
func TestBoolBudget(t *testing.T) {
	counted := map[string]int{}
	for dir, files := range sources(t) {
		if dir == "api" || dir == "internal/config" || strings.HasPrefix(dir, "cmd/") {
			continue
		}
		for _, f := range files {
			eachStruct(f, func(name string, s *ast.StructType) {
				for _, suffix := range []string{"Config", "Options", "Plan", "Flags"} {
					if strings.HasSuffix(name, suffix) {
						return
					}
				}
				for _, field := range s.Fields.List {
					if isBool(field.Type) {
						counted[dir+"."+name] += max(1, len(field.Names))
					}
				}
			})
		}
	}
	within(t, "booleans", maxBools, counted, map[string]int{
		"datatransfer/channels.Credit":             10,
		"datatransfer/transport/graphsync.channel": 10,
		"datatransfer/transport/stream.channel":    5,
		"retrievalmarket/impl.clientDeal":          6,
		"retrievalmarket/impl.providerDeal":        9,
	})
}

func eachStruct(f *ast.File, do func(name string, s *ast.StructType)) {
	for _, d := range f.Decls {
		g, ok := d.(*ast.GenDecl)
		if !ok {
			continue
		}
		for _, s := range g.Specs {
			if ts, ok := s.(*ast.TypeSpec); ok {
				if st, ok := ts.Type.(*ast.StructType); ok {
					do(ts.Name.Name, st)
				}
			}
		}
	}
}

// isBool reports whether a field is a boolean, an atomic one included.
func isBool(e ast.Expr) bool {
	switch x := e.(type) {
	case *ast.Ident:
		return x.Name == "bool"
	case *ast.SelectorExpr:
		return x.Sel.Name == "Bool"
	}
	return false
}

// TestMutexBudget: what several goroutines share has few owners.
func TestMutexBudget(t *testing.T) {
	counted := map[string]int{}
	for dir, files := range sources(t) {
		for _, f := range files {
			eachStruct(f, func(_ string, s *ast.StructType) {
				for _, field := range s.Fields.List {
					if x, ok := field.Type.(*ast.SelectorExpr); ok && (x.Sel.Name == "Mutex" || x.Sel.Name == "RWMutex") {
						counted[dir] += max(1, len(field.Names))
					}
				}
			})
		}
	}
	within(t, "mutex fields", maxMutexes, counted, map[string]int{
		"internal/node":        7,
		"internal/sim":         10,
		"internal/store":       7,
		"retrievalmarket/impl": 14,
	})
}

// TestDeclaredContracts: what one package calls in another is a declared interface.
func TestDeclaredContracts(t *testing.T) {
	for dir, files := range sources(t) {
		for _, f := range files {
			ast.Inspect(f, func(n ast.Node) bool {
				if a, ok := n.(*ast.TypeAssertExpr); ok {
					if i, ok := a.Type.(*ast.InterfaceType); ok && len(i.Methods.List) > 0 {
						t.Errorf("%s: a type assertion to an interface without a name", dir)
					}
				}
				return true
			})
		}
	}
}

// readsTexts are the places that look into the text of an error, each of a foreign system that has no codes.
var readsTexts = map[string]bool{
	"datatransfer/transport/graphsync": true, // go-graphsync says only in words that a request is or is not paused
	"internal/store":                   true, // Pebble says only in words that another process has its lock
	"paych/lotus":                      true, // a Lotus node says only in words that an actor is not there
}

// TestNoErrorTexts: no program decides by the text of an error.
func TestNoErrorTexts(t *testing.T) {
	for dir, files := range sources(t) {
		for _, f := range files {
			ast.Inspect(f, func(n ast.Node) bool {
				call, ok := n.(*ast.CallExpr)
				if !ok {
					return true
				}
				s, ok := call.Fun.(*ast.SelectorExpr)
				if x, isPkg := exprName(s); ok && isPkg && x == "strings" && len(call.Args) > 0 && callsError(call.Args[0]) && !readsTexts[dir] {
					t.Errorf("%s: strings.%s of an error's text", dir, s.Sel.Name)
				}
				return true
			})
		}
	}
}

func exprName(s *ast.SelectorExpr) (string, bool) {
	if s == nil {
		return "", false
	}
	id, ok := s.X.(*ast.Ident)
	if !ok {
		return "", false
	}
	return id.Name, true
}

func callsError(e ast.Expr) bool {
	c, ok := e.(*ast.CallExpr)
	if !ok {
		return false
	}
	s, ok := c.Fun.(*ast.SelectorExpr)
	return ok && s.Sel.Name == "Error" && len(c.Args) == 0
}

// minName is the least median length of the names of unexported functions. It is to become 10.
const minName = 7

// TestNames: the name of a function says what it does.
func TestNames(t *testing.T) {
	var lengths []int
	for _, files := range sources(t) {
		for _, f := range files {
			for _, d := range f.Decls {
				if fn, ok := d.(*ast.FuncDecl); ok && !fn.Name.IsExported() && fn.Name.Name != "main" && fn.Name.Name != "init" {
					lengths = append(lengths, len(fn.Name.Name))
				}
			}
		}
	}
	sort.Ints(lengths)
	require.GreaterOrEqual(t, lengths[len(lengths)/2], minName)
}
