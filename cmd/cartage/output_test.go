package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestNothingIsPrintedRaw: what people read goes through internal/ui, which makes data of names and messages of others: no verb prints by
// itself.
func TestNothingIsPrintedRaw(t *testing.T) {
	files := token.NewFileSet()
	pkgs, err := parser.ParseDir(files, ".", func(f fs.FileInfo) bool { return !strings.HasSuffix(f.Name(), "_test.go") }, 0)
	require.NoError(t, err)
	for _, p := range pkgs {
		ast.Inspect(p, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			f, ok := call.Fun.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			pkg, _ := f.X.(*ast.Ident)
			if pkg != nil && pkg.Name == "fmt" && (strings.HasPrefix(f.Sel.Name, "Print") || strings.HasPrefix(f.Sel.Name, "Fprint")) {
				t.Errorf("%s: fmt.%s: print with say, note or table", files.Position(call.Pos()), f.Sel.Name)
			}
			return true
		})
	}
}
