// Command pause is the first process of every pod: it keeps the pod's namespaces alive, and where the pod shares its
// process namespace it is process 1 there and has to collect orphans.
package main

import (
	"errors"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	orphan, stop := make(chan os.Signal, 1), make(chan os.Signal, 1)
	signal.Notify(orphan, syscall.SIGCHLD)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	for {
		select {
		case <-stop:
			return
		case <-orphan:
			collect()
		}
	}
}

// collect takes every child that has ended; signals merge, so one signal may stand for many of them.
func collect() {
	for {
		pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil)
		if pid <= 0 && !errors.Is(err, syscall.EINTR) {
			return
		}
	}
}
