//go:build tools

// Package tools names the program that start.sh builds, so that go.mod keeps it.
package tools

import _ "github.com/VictoriaMetrics/VictoriaLogs/app/victoria-logs"
