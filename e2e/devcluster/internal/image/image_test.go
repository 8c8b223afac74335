package image

import (
	"archive/tar"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/mutate"
)

func TestBuildIsRepeatableAndHoldsWhatWasAdded(t *testing.T) {
	folder := t.TempDir()
	program := filepath.Join(folder, "prog")
	if err := os.WriteFile(program, []byte("binary"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(folder, "data"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("prog", filepath.Join(folder, "link")); err != nil {
		t.Fatal(err)
	}
	one, err := ParseAdd(program + ":/bin/prog:0755")
	if err != nil {
		t.Fatal(err)
	}
	all, err := ParseAdd(folder + ":/all")
	if err != nil {
		t.Fatal(err)
	}
	raised, err := ParseAdd(program + ":/bin/raised:4755")
	if err != nil {
		t.Fatal(err)
	}
	spec := Spec{Files: slices.Concat(one, all, raised), Entrypoint: []string{"/bin/prog"}, User: "7", Env: []string{"A=b"}}
	img, err := Build(spec)
	if err != nil {
		t.Fatal(err)
	}
	first, _ := img.Digest()
	again, err := Build(spec)
	if err != nil {
		t.Fatal(err)
	}
	if second, _ := again.Digest(); first != second {
		t.Errorf("the same files gave %s and %s", first, second)
	}
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if config.Config.User != "7" || config.Config.Entrypoint[0] != "/bin/prog" || len(config.Config.Env) != 2 || !strings.HasPrefix(config.Config.Env[0], "PATH=") {
		t.Errorf("config is %+v", config.Config)
	}
	found := map[string]*tar.Header{}
	reader := tar.NewReader(mutate.Extract(img))
	for {
		header, err := reader.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		found[strings.TrimSuffix(header.Name, "/")] = header
	}
	for _, name := range []string{"bin", "bin/prog", "bin/raised", "all", "all/data", "all/link", "all/prog"} {
		if found[name] == nil {
			t.Errorf("no %s in the image; it holds %v", name, found)
		}
	}
	if t.Failed() {
		return
	}
	if found["bin/prog"].Mode != 0o755 || found["bin/raised"].Mode != 0o4755 || found["all/prog"].Mode != 0o644 || found["all/link"].Linkname != "prog" {
		t.Error("modes or links are wrong")
	}
}

func TestParseAddRefuses(t *testing.T) {
	for _, bad := range []string{"", "a", "a:b", ":/b", "/etc/passwd:relative", "/no/such/file:/x", "/etc/passwd:/x:rwx", "/etc:/x:0755", "a:/b:0755:c"} {
		if _, err := ParseAdd(bad); err == nil {
			t.Errorf("--add %q was accepted", bad)
		}
	}
}

func TestSaveAndOpen(t *testing.T) {
	img, err := Build(Spec{Files: []File{{Target: "/hello", Content: "world", Mode: 0o600}}})
	if err != nil {
		t.Fatal(err)
	}
	tag, err := Parse("example.com/a/b:c")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "image.tar")
	if err := Save(file, tag, img); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(file); err != nil {
		t.Error(err)
	}
	if _, err := Open("/etc/passwd"); err == nil {
		t.Error("a file that is no archive was accepted")
	}
}
