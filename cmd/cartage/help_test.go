package main

import (
	"bytes"
	"strings"
	"testing"
	"unicode"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/stretchr/testify/require"
)

// TestEveryVerbHelps: each verb has a sentence, flags that say what they are, one to three examples that the program takes, and its exit codes.
func TestEveryVerbHelps(t *testing.T) {
	walked := 0
	eachCommand((&cli{}).root(), func(cmd *cobra.Command) {
		walked++
		name := cmd.CommandPath()
		require.NotEmpty(t, cmd.Short, name)
		require.True(t, unicode.IsUpper(rune(cmd.Short[0])), "%s: %q", name, cmd.Short)
		cmd.LocalFlags().VisitAll(func(f *pflag.Flag) { require.NotEmpty(t, f.Usage, "%s --%s", name, f.Name) })
		lines := strings.Split(cmd.Example, "\n")
		require.NotEmpty(t, cmd.Example, "%s has no example", name)
		require.LessOrEqual(t, len(lines), 3, name)
		for _, l := range lines {
			takes(t, cmd, strings.Fields(l))
		}
		var out bytes.Buffer
		cmd.SetOut(&out)
		require.NoError(t, cmd.Usage())
		require.Contains(t, out.String(), "Exit codes:", name)
		require.Contains(t, out.String(), "Examples:", name)
	})
	require.Greater(t, walked, 80)
	known := map[string]bool{}
	eachCommand((&cli{}).root(), func(cmd *cobra.Command) {
		_, verb, _ := strings.Cut(cmd.CommandPath(), " ")
		known[verb] = true
	})
	for verb := range examples() {
		require.True(t, known[verb], "there is no verb %q", verb)
	}
}

// takes finds the verb of an example in a program of its own, and lets it read flags and arguments.
func takes(t *testing.T, of *cobra.Command, words []string) {
	t.Helper()
	for strings.Contains(words[0], "=") { // of the environment
		words = words[1:]
	}
	require.Equal(t, "cartage", words[0])
	cmd, rest, err := (&cli{}).root().Find(words[1:])
	require.NoError(t, err, words)
	require.True(t, strings.HasPrefix(cmd.CommandPath(), of.CommandPath()) || of.Parent() == nil, "%v is of %s", words, cmd.CommandPath())
	require.NoError(t, cmd.ParseFlags(rest), words)
	require.NoError(t, cmd.ValidateRequiredFlags(), words)
	require.NoError(t, cmd.ValidateFlagGroups(), words)
	require.NoError(t, cmd.ValidateArgs(cmd.Flags().Args()), words)
}
