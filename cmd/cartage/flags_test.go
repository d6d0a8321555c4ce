package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/require"
)

// TestT_C1 : what a flag sets is read somewhere besides where the flag is declared.
func TestT_C1(t *testing.T) {
	pkgs, err := parser.ParseDir(token.NewFileSet(), ".", func(f fs.FileInfo) bool { return !strings.HasSuffix(f.Name(), "_test.go") }, 0)
	require.NoError(t, err)
	declared, uses := map[string]int{}, map[string]int{}
	ast.Inspect(pkgs["main"], func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.CallExpr:
			sel, ok := n.Fun.(*ast.SelectorExpr)
			if !ok || !strings.Contains(sel.Sel.Name, "Var") || len(n.Args) < 3 {
				return true
			}
			if u, ok := n.Args[0].(*ast.UnaryExpr); ok && u.Op == token.AND {
				if name := nameOf(u.X); !ast.IsExported(name) { // an exported one is another package's to read
					declared[name]++
					uses[name]-- // this one
				}
			}
		case *ast.Ident:
			uses[n.Name]++
		case *ast.ValueSpec:
			for _, id := range n.Names {
				uses[id.Name]-- // a declaration is no use
			}
		case *ast.Field:
			for _, id := range n.Names {
				uses[id.Name]--
			}
		}
		return true
	})
	require.Greater(t, len(declared), 30)
	for name := range declared {
		require.Positive(t, uses[name], "the flag that sets %s is read by nobody", name)
	}
}

func nameOf(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.SelectorExpr:
		return e.Sel.Name
	}
	return ""
}

// TestHelp: every command says what it does, and every flag too.
func TestHelp(t *testing.T) {
	var walk func(*cobra.Command)
	walk = func(cmd *cobra.Command) {
		require.NotEmpty(t, cmd.Short, cmd.CommandPath())
		require.True(t, cmd.Runnable() || cmd.HasSubCommands(), cmd.CommandPath())
		for _, sub := range cmd.Commands() {
			walk(sub)
		}
	}
	walk((&cli{}).root())
}
