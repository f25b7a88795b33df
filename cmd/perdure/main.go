// Perdure keeps the answers of graph queries over changing databases up to date; see `perdure --help`.
package main

import (
	"context"
	"os"

	"github.com/perdure/perdure/cmd/internal/cli"
)

func main() {
	os.Exit(cli.Main(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
}
