package pid

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

func TestReusedNumberIsNotTheSameProcess(t *testing.T) {
	self, err := Of(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if !self.Alive() {
		t.Error("this process is said to be gone")
	}
	older := self
	older.Start = "1@an-older-boot"
	if older.Alive() {
		t.Error("a process that started at another time was taken for this one")
	}
	if err := older.Signal(syscall.SIGTERM); err != os.ErrProcessDone {
		t.Errorf("signalling it gave %v, and would have ended the test", err)
	}
}

func TestRecordSurvivesAndEndIsSeen(t *testing.T) {
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	id, err := Of(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "sleeper.pid")
	if err := id.Write(file); err != nil {
		t.Fatal(err)
	}
	back, err := Read(file)
	if err != nil || back != id {
		t.Fatalf("read back %v, %v; want %v", back, err, id)
	}
	if err := back.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	// Nobody has waited for it yet: a zombie must count as gone.
	if !back.WaitGone(time.Minute) {
		t.Error("a killed process is said to run")
	}
	_ = cmd.Wait()
	Remove(file)
	if _, err := Read(file); err == nil {
		t.Error("a removed record can still be read")
	}
}

func TestParseStatWithBracketsInTheName(t *testing.T) {
	start, err := parseStat("7 (a) b) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20")
	if err != nil || start != "4711" {
		t.Errorf("got %q, %v", start, err)
	}
	if _, err := parseStat("7 (x) Z 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20"); err == nil {
		t.Error("a zombie has a start time")
	}
}
