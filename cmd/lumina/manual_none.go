//go:build !manual

package main

func manual() []subcommand { return nil }
