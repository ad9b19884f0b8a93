package main

import (
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/coremain"
	_ "github.com/coredns/coredns/plugin/bind"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/kubernetes"
)

// The order of this list is the order in which the plugins see a query; CoreDNS' own list names plugins not linked here.
func init() {
	dnsserver.Directives = []string{"bind", "errors", "kubernetes"}
}

func runDNS() int {
	coremain.Run()
	return 0
}
