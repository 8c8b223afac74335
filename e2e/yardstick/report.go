package yardstick

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// result is how one test ended.
type result struct {
	passed bool
	// where and why a test failed: FILE:LINE and the failure's first line.
	where, why string
}

// results are a column: what became of each test, by its name.
type results map[string]result

// spec is what is read of a test in the report that ginkgo writes.
type spec struct {
	ContainerHierarchyTexts []string
	LeafNodeText            string
	State                   string
	NumAttempts             int
	Failure                 struct {
		Message  string
		Location struct {
			FileName   string
			LineNumber int
		}
	}
}

// readReport reads ginkgo's report, and when the suite began. Tests that were not asked for are in it too,
// without an attempt; a test that found by itself that it has nothing to test is
// neither passed nor failed and left away.
func readReport(file string) (results, time.Time, error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("read the suite's report: %w", err)
	}
	var suites []struct {
		StartTime   time.Time
		SpecReports []spec
	}
	if err := json.Unmarshal(raw, &suites); err != nil {
		return nil, time.Time{}, fmt.Errorf("read the suite's report %s: %w", file, err)
	}
	all := results{}
	var when time.Time
	for _, suite := range suites {
		when = suite.StartTime
		for _, s := range suite.SpecReports {
			if s.LeafNodeText == "" || s.NumAttempts == 0 || s.State == "skipped" {
				continue
			}
			first, _, _ := strings.Cut(s.Failure.Message, "\n")
			r := result{passed: s.State == "passed", why: first}
			if !r.passed {
				r.where = fmt.Sprintf("%s:%d", filepath.Base(s.Failure.Location.FileName), s.Failure.Location.LineNumber)
			}
			all[testName(append(s.ContainerHierarchyTexts, s.LeafNodeText))] = r
		}
	}
	if len(all) == 0 {
		return nil, time.Time{}, fmt.Errorf("the suite's report %s holds no test that ran", file)
	}
	return all, when, nil
}

// testName is a test's name without the marks that all of these have.
func testName(texts []string) string {
	name := strings.Join(texts, " ")
	for _, mark := range []string{"[NodeConformance]", "[Conformance]", "[LinuxOnly]"} {
		name = strings.ReplaceAll(name, mark, "")
	}
	return strings.Join(strings.Fields(name), " ")
}
