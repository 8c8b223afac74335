package preflight

import (
	"strings"
	"testing"
)

func good() Facts {
	return Facts{
		OS: "linux", UID: 0, Go: true, NeedGo: true, AptGet: true, FreeBytes: 100 << 30,
		Dir: "/tmp/dc", Filesystems: "nodev\toverlay\n", CgroupsWritable: true,
	}
}

func TestAGoodMachineHasNoProblems(t *testing.T) {
	if problems := Judge(good()); len(problems) != 0 {
		t.Errorf("got %v", problems)
	}
}

func TestEachHindranceIsNamedWithItsFix(t *testing.T) {
	for name, item := range map[string]struct {
		change    func(*Facts)
		what, fix string
	}{
		"other system": {func(f *Facts) { f.OS = "darwin" }, "this is darwin", "Linux machine"},
		"not root":     {func(f *Facts) { f.UID = 1000 }, "this is user 1000", "sudo"},
		"no go":        {func(f *Facts) { f.Go = false }, "go command", "install Go"},
		"no runc":      {func(f *Facts) { f.Missing = []string{"runc"} }, "not installed: runc", "apt-get install -y runc"},
		"no disk":      {func(f *Facts) { f.FreeBytes = 3 << 29 }, "only 1.5 GiB are free where /tmp/dc lies, and 6 GiB", "--dir"},
		"no overlay":   {func(f *Facts) { f.Filesystems = "nodev\tproc\n" }, "overlay", "modprobe overlay"},
		"cgroups":      {func(f *Facts) { f.CgroupsWritable = false }, "/sys/fs/cgroup", "--privileged"},
	} {
		facts := good()
		item.change(&facts)
		problems := Judge(facts)
		if len(problems) != 1 {
			t.Errorf("%s: got %d problems: %v", name, len(problems), problems)
			continue
		}
		if !strings.Contains(problems[0].What, item.what) || !strings.Contains(problems[0].Fix, item.fix) {
			t.Errorf("%s: got %q", name, problems[0])
		}
		if strings.Count(problems[0].What, "\n") > 0 {
			t.Errorf("%s: more than one line: %q", name, problems[0].What)
		}
	}
}

func TestBuiltProgramsNeedNeitherGoNorMuchDisk(t *testing.T) {
	facts := good()
	facts.NeedGo, facts.Go, facts.FreeBytes = false, false, 2<<30
	if problems := Judge(facts); len(problems) != 0 {
		t.Errorf("got %v", problems)
	}
}

func TestCapability(t *testing.T) {
	if hasCapability("CapEff:\t000001fffeffffff\n", 24) {
		t.Error("CAP_SYS_RESOURCE is not in this mask")
	}
	if !hasCapability("CapEff:\t000001ffffffffff\n", 24) {
		t.Error("CAP_SYS_RESOURCE is in this mask")
	}
}
