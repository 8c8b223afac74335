package cli

import (
	"net/url"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// retyped is a command as it was typed, with its nodes by name and with more values of one
// of its flags, to be pasted into a shell. A token, and a password in a URL, are nobody's to
// print: what stands in their place is to be filled in.
func retyped(cmd *cobra.Command, nodes []string, flag string, more []string) string {
	words := append([]string{cmd.CommandPath()}, nodes...)
	add := func(f *pflag.Flag, value string) {
		if f.NoOptDefVal != "" {
			words = append(words, "--"+f.Name+"="+quoted(value)) // a word of its own would not be its value
			return
		}
		if u, err := url.Parse(value); err == nil && u.User != nil {
			value = u.Redacted()
		}
		words = append(words, "--"+f.Name, quoted(value))
	}
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		switch values, isList := f.Value.(pflag.SliceValue); {
		case f.Name == flag && isList:
			all := values.GetSlice()
			for _, v := range more {
				if !slices.Contains(all, v) {
					all = append(all, v)
				}
			}
			add(f, strings.Join(all, ","))
		case !f.Changed:
		case f.Name == "token":
			words = append(words, `--token "$TOKEN"`)
		case isList:
			for _, v := range values.GetSlice() {
				add(f, v)
			}
		default:
			add(f, f.Value.String())
		}
	})
	return strings.Join(words, " ")
}

// quoted is a word as a shell takes it for one.
func quoted(word string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_./:,=@+", r)
	}
	if word != "" && !strings.ContainsFunc(word, func(r rune) bool { return !plain(r) }) {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}
