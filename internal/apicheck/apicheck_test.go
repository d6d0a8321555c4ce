// Package apicheck keeps the published name lists inside the repository.
package apicheck

import (
	"bufio"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestPublishedNames(t *testing.T) {
	for list, dir := range map[string]string{
		"api-datatransfer.txt": "../../datatransfer", "api-retrievalmarket.txt": "../../retrievalmarket", "api-clientstates.txt": "../../retrievalmarket/impl/clientstates",
	} {
		t.Run(list, func(t *testing.T) {
			have := exported(t, dir)
			f, err := os.Open("../../testdata/" + list)
			require.NoError(t, err)
			defer f.Close()
			n := 0
			for s := bufio.NewScanner(f); s.Scan(); n++ {
				if name := strings.TrimSpace(s.Text()); name != "" && !have[name] {
					t.Errorf("missing %s", name)
				}
			}
			require.Positive(t, n)
		})
	}
}

// exported lists the exported names of a package in the form of the lists.
func exported(t *testing.T, dir string) map[string]bool {
	pkgs, err := parser.ParseDir(token.NewFileSet(), dir, func(i fs.FileInfo) bool { return !strings.HasSuffix(i.Name(), "_test.go") }, 0)
	require.NoError(t, err)
	out := map[string]bool{}
	for _, p := range pkgs {
		for _, f := range p.Files {
			for _, d := range f.Decls {
				declaration(d, out)
			}
		}
	}
	return out
}

func declaration(d ast.Decl, out map[string]bool) {
	switch d := d.(type) {
	case *ast.FuncDecl:
		if d.Recv == nil {
			out["func "+d.Name.Name] = true
			return
		}
		r := d.Recv.List[0].Type
		if s, ok := r.(*ast.StarExpr); ok {
			r = s.X
		}
		if id, ok := r.(*ast.Ident); ok {
			out["method "+id.Name+"."+d.Name.Name] = true
		}
	case *ast.GenDecl:
		for _, s := range d.Specs {
			switch s := s.(type) {
			case *ast.ValueSpec:
				for _, n := range s.Names {
					out[d.Tok.String()+" "+n.Name] = true
				}
			case *ast.TypeSpec:
				out["type "+s.Name.Name] = true
				members(s, out)
			}
		}
	}
}

func members(s *ast.TypeSpec, out map[string]bool) {
	var list *ast.FieldList
	kind := "field "
	switch t := s.Type.(type) {
	case *ast.StructType:
		list = t.Fields
	case *ast.InterfaceType:
		list, kind = t.Methods, "imethod "
	default:
		return
	}
	for _, f := range list.List {
		for _, n := range f.Names {
			out[kind+s.Name.Name+"."+n.Name] = true
		}
		if len(f.Names) == 0 && kind == "field " {
			if id, ok := f.Type.(*ast.Ident); ok {
				out[kind+s.Name.Name+"."+id.Name] = true
			}
		}
	}
}
