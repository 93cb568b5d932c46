// Package chart_test renders the chart with Helm's own packages, with each file of
// values in starling/ci and with values of its own, and looks at what comes out: as
// Kubernetes would, strictly and with the validation of its API server; and as the
// program would, which is built and asked. It is a module of its own, so that what
// it needs is no part of the program's.
package chart_test
