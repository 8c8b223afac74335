// Package output writes what the commands show: data on stdout in the formats that
// kubectl get knows, progress on stderr.
package output

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/kubectl/pkg/cmd/get"
)

// Flags are kubectl get's output flags.
type Flags struct {
	*get.PrintFlags
}

// NewFlags makes Flags that print a table unless told otherwise.
func NewFlags() Flags { return Flags{get.NewGetPrintFlags()} }

// AddFlags adds -o, --no-headers and the others that fit any table.
func (f Flags) AddFlags(cmd *cobra.Command) {
	cmd.Flags().StringVarP(f.OutputFormat, "output", "o", *f.OutputFormat,
		"Output format. One of: (json, yaml, name, wide, jsonpath, jsonpath-file, go-template, go-template-file, custom-columns, custom-columns-file).")
	cmd.Flags().BoolVar(f.NoHeaders, "no-headers", *f.NoHeaders, "Leave the table's headers out.")
	f.JSONYamlPrintFlags.AddFlags(cmd)
	f.TemplateFlags.AddFlags(cmd)
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(
		[]string{"json", "yaml", "name", "wide", "jsonpath=", "custom-columns="}, cobra.ShellCompDirectiveNoFileComp))
}

// Wide reports whether the table's last columns are wanted.
func (f Flags) Wide() bool { return *f.OutputFormat == "wide" }

// IsTable reports whether a person reads, rather than a program.
func (f Flags) IsTable() bool {
	return (*f.OutputFormat == "" || f.Wide()) && (f.TemplateFlags.TemplateArgument == nil || *f.TemplateFlags.TemplateArgument == "")
}

// Validate tells a wrong format before anything else is done.
func (f Flags) Validate() error {
	_, err := f.ToPrinter()
	if genericclioptions.IsNoCompatiblePrinterError(err) {
		return fmt.Errorf("unable to match a printer suitable for the output format %q, allowed formats are: custom-columns, custom-columns-file, go-template, go-template-file, json, jsonpath, jsonpath-file, name, wide, yaml", *f.OutputFormat)
	}
	return err
}

// Print writes object, or for a person the table that view makes.
func (f Flags) Print(out io.Writer, object runtime.Object, view func() *metav1.Table) error {
	printer, err := f.ToPrinter()
	if err != nil {
		return err
	}
	if f.IsTable() {
		object = view()
	}
	objects := []runtime.Object{object}
	if *f.OutputFormat == "name" && meta.IsListType(object) { // the one printer that takes no lists
		if objects, err = meta.ExtractList(object); err != nil {
			return fmt.Errorf("print: %w", err)
		}
	}
	for _, o := range objects {
		if err := printer.PrintObj(o, out); err != nil {
			return fmt.Errorf("print: %w", err)
		}
	}
	return nil
}

// Column is one column of a table.
type Column struct {
	Name string
	// Wide columns are shown with -o wide only.
	Wide bool
}

// Table makes a table of rows of text.
func Table(columns []Column, rows [][]string) *metav1.Table {
	table := &metav1.Table{}
	for _, c := range columns {
		priority := int32(0)
		if c.Wide {
			priority = 1
		}
		table.ColumnDefinitions = append(table.ColumnDefinitions, metav1.TableColumnDefinition{
			Name: c.Name, Type: "string", Priority: priority,
		})
	}
	for _, row := range rows {
		cells := make([]any, len(row))
		for i, cell := range row {
			cells[i] = cell
		}
		table.Rows = append(table.Rows, metav1.TableRow{Cells: cells})
	}
	return table
}

// PrintTable writes what has no other form than a table.
func (f Flags) PrintTable(out io.Writer, table *metav1.Table) error {
	return f.Print(out, table, func() *metav1.Table { return table })
}
