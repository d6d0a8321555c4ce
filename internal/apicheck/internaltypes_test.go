package apicheck

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// stillInternal are the declarations that name an internal type today: what parts of the product call in each other. The list only shrinks.
var stillInternal = map[string]bool{
	"api/error.go: FailureReason names reason.Reason":                                     true,
	"dagstore/index/embedded.go: Open names store.KV":                                     true,
	"datatransfer/channels/runs.go: Blocks names port.BlockRef":                           true,
	"datatransfer/impl/events.go: OnBlocksSent names port.BlockRef":                       true,
	"datatransfer/impl/events.go: OnBlocksReceived names port.BlockRef":                   true,
	"datatransfer/impl/release.go: MaySend names port.Release":                            true,
	"datatransfer/transport/asked/asked.go: Decide names port.Handler":                    true,
	"datatransfer/transport/asked/asked.go: Check names port.Handler":                     true,
	"datatransfer/transport/asked/asked.go: Silent names port.Handler":                    true,
	"datatransfer/transport/graphsync/requester.go: Traits names port.Traits":             true,
	"datatransfer/transport/router/router.go: Fast names port.Transport":                  true,
	"datatransfer/transport/router/router.go: Join names port.Transport":                  true,
	"datatransfer/transport/router/router.go: Traits names port.Traits":                   true,
	"datatransfer/transport/stream/transport.go: Traits names port.Traits":                true,
	"piecestore/piecestore.go: Field names wire.Field":                                    true,
	"retrievalmarket/codec.go: Field names wire.Field":                                    true,
	"retrievalmarket/impl/client.go: ClientConfig names accounting.AdvanceLimits":         true,
	"retrievalmarket/impl/client_payments.go: Facts names accounting.BuyerFacts":          true,
	"retrievalmarket/impl/client_payments.go: AdvanceLosses names accounting.Advance":     true,
	"retrievalmarket/impl/clientstates/entry.go: BuyerFacts names accounting.BuyerFacts":  true,
	"retrievalmarket/impl/clientstates/entry.go: DemandOf names accounting.DemandKind":    true,
	"retrievalmarket/impl/clientstates/entry.go: RecordFacts names accounting.BuyerFacts": true,
	"retrievalmarket/impl/clientstates/table.go: Terms names accounting.Terms":            true,
	"retrievalmarket/impl/clientstates/table.go: ReasonOf names reason.Reason":            true,
	"retrievalmarket/impl/credit.go: Accounts names accounting.Payers":                    true,
	"retrievalmarket/impl/provider.go: ProviderConfig names accounting.CreditLimits":      true,
	"retrievalmarket/impl/provider.go: ProviderConfig names accounting.Origin":            true,
	"retrievalmarket/impl/providerstates/table.go: Terms names accounting.Terms":          true,
}

// TestNoInternalTypes: whoever imports a public package can name every type in its exported declarations (O-54).
func TestNoInternalTypes(t *testing.T) {
	require.NoError(t, filepath.WalkDir("../..", func(name string, d fs.DirEntry, err error) error {
		rel, _ := filepath.Rel("../..", name)
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "internal" || d.Name() == "cmd" || d.Name() == "bench" || d.Name() == "interop" || d.Name() == "tools" || d.Name() == "testdata" || strings.HasPrefix(d.Name(), ".") && rel != "."):
			return filepath.SkipDir
		case d.IsDir() || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go"):
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err == nil {
			for _, use := range internalUses(file) {
				if use = filepath.ToSlash(rel) + ": " + use; !stillInternal[use] {
					t.Error(use)
				}
			}
		}
		return err
	}))
}

// internalUses lists the exported declarations of a file that name a type of an internal package.
func internalUses(file *ast.File) (out []string) {
	hidden := map[string]bool{}
	for _, i := range file.Imports {
		p, _ := strconv.Unquote(i.Path.Value)
		name := path.Base(p)
		if i.Name != nil {
			name = i.Name.Name
		}
		hidden[name] = strings.HasPrefix(p, module) && strings.Contains(p, "/internal/")
	}
	look := func(what string, n ast.Node) {
		ast.Inspect(n, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.Field: // an unexported field, or method of an interface, is nobody's
				return len(n.Names) == 0 || anyExported(n.Names)
			case *ast.SelectorExpr:
				if x, ok := n.X.(*ast.Ident); ok && hidden[x.Name] {
					out = append(out, what+" names "+x.Name+"."+n.Sel.Name)
				}
			}
			return true
		})
	}
	for _, d := range file.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			if d.Name.IsExported() && (d.Recv == nil || receiverExported(d.Recv)) {
				for _, l := range []*ast.FieldList{d.Type.Params, d.Type.Results} {
					if l == nil {
						continue
					}
					for _, f := range l.List {
						look(d.Name.Name, f.Type)
					}
				}
			}
		case *ast.GenDecl:
			for _, s := range d.Specs {
				switch s := s.(type) {
				case *ast.TypeSpec:
					if s.Name.IsExported() {
						look(s.Name.Name, s.Type)
					}
				case *ast.ValueSpec:
					if anyExported(s.Names) && s.Type != nil {
						look(s.Names[0].Name, s.Type)
					}
				}
			}
		}
	}
	return out
}

func anyExported(names []*ast.Ident) bool {
	for _, n := range names {
		if n.IsExported() {
			return true
		}
	}
	return false
}

func receiverExported(l *ast.FieldList) bool {
	t := l.List[0].Type
	if s, ok := t.(*ast.StarExpr); ok {
		t = s.X
	}
	if i, ok := t.(*ast.IndexExpr); ok {
		t = i.X
	}
	id, ok := t.(*ast.Ident)
	return ok && id.IsExported()
}
