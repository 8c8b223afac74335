package pods

import (
	"github.com/ainode/ainode/nodeagent/internal/podtest"
	"github.com/ainode/ainode/nodeagent/internal/statuswriter"
)

var asking, askingFor = podtest.Asking, podtest.AskingFor

var version = statuswriter.Version
