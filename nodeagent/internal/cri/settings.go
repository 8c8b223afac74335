package cri

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	utilversion "k8s.io/apimachinery/pkg/util/version"
	criapi "k8s.io/cri-api/pkg/apis"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Settings are what a runtime tells of its own configuration; of one that is not
// containerd, only name and version.
type Settings struct {
	Name, Version string
	Containerd    Containerd
}

// Containerd is what we look at of containerd's CRI configuration, as a verbose Status
// prints it. Version 1 prints some fields elsewhere.
type Containerd struct {
	// EnableCDI is not told before 1.7, and in 2.4 there is nothing left to turn off.
	EnableCDI   *bool    `json:"enableCDI"`
	CDISpecDirs []string `json:"cdiSpecDirs"`
	RootDir     string   `json:"containerdRootDir"`
	CNI         struct {
		BinDirs []string `json:"binDirs"`
		ConfDir string   `json:"confDir"`
	} `json:"cni"`
	Handlers struct {
		Default string             `json:"defaultRuntimeName"`
		ByName  map[string]Handler `json:"runtimes"`
	} `json:"containerd"`
}

// Handler is a runtime handler.
type Handler struct {
	Options map[string]any `json:"options"`
}

// Program is what containerd runs for the handler; empty is runc.
func (h Handler) Program() string {
	program, _ := h.Options["BinaryName"].(string)
	return program
}

// ReadSettings are the settings in a verbose Status.
func ReadSettings(version *runtimeapi.VersionResponse, status *runtimeapi.StatusResponse) Settings {
	s := Settings{Name: version.GetRuntimeName(), Version: version.GetRuntimeVersion()}
	_ = json.Unmarshal([]byte(status.GetInfo()["config"]), &s.Containerd) // what is not there is not judged
	return s
}

// AskSettings asks a runtime for its settings.
func AskSettings(ctx context.Context, runtime criapi.RuntimeService) (Settings, error) {
	version, err := runtime.Version(ctx, "v1")
	if err != nil {
		return Settings{}, fmt.Errorf("ask the container runtime for its version: %w", err)
	}
	status, err := runtime.Status(ctx, true)
	if err != nil {
		return Settings{}, fmt.Errorf("ask the container runtime for its settings: %w", err)
	}
	return ReadSettings(version, status), nil
}

// Injection is how a runtime puts NVIDIA cards into containers.
type Injection struct {
	// CDI: by the CDI names in a request.
	CDI bool
	// Handler is one of NVIDIA's, which gives a container the cards that its environment
	// names (NVIDIA_VISIBLE_DEVICES); empty where there is none.
	Handler string
	// ByDefault says that containers get there where no handler is asked for. Most CUDA
	// images name all cards in their environment.
	ByDefault bool
}

// ErrNoInjection says that the container runtime gives cards to nobody.
var ErrNoInjection = errors.New("the container runtime can't give GPUs to containers: it has CDI turned off, or is too old for it, and no runtime handler of NVIDIA's")

// Injects reports whether there is any way for cards to get in.
func (i Injection) Injects() bool { return i.CDI || i.Handler != "" }

// usesCDI is the containerd that first used CDI names in requests without being told to. 1.7
// tells whether it does, and those before it know none.
var usesCDI = utilversion.MustParseGeneric("2.0.0")

// Injection of these settings.
func (s Settings) Injection() Injection {
	handlers := s.Containerd.Handlers
	i := Injection{CDI: s.cdi(), ByDefault: nvidias(handlers.Default, handlers.ByName[handlers.Default])}
	// One that NVIDIA's tools call nvidia before others; nvidia-cdi does not know
	// cards by their bare UUIDs.
	for _, name := range slices.Sorted(maps.Keys(handlers.ByName)) {
		if name == "nvidia" || i.Handler == "" && name != "nvidia-cdi" && nvidias(name, handlers.ByName[name]) {
			i.Handler = name
		}
	}
	return i
}

func (s Settings) cdi() bool {
	if told := s.Containerd.EnableCDI; told != nil {
		return *told
	}
	version, err := utilversion.ParseGeneric(s.Version)
	return s.Name != "containerd" || err != nil || version.AtLeast(usesCDI)
}

// nvidias reports whether a handler is one that nvidia-ctk runtime configure made, or
// runs NVIDIA's program under another name.
func nvidias(name string, h Handler) bool {
	switch name {
	case "nvidia", "nvidia-cdi", "nvidia-legacy":
		return true
	}
	return strings.HasPrefix(filepath.Base(h.Program()), "nvidia-container-runtime")
}
