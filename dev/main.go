// One binary that holds the programs of a Kubernetes control plane and of a
// node, and the supervisors that run them for tests and for the demo. See
// README.md.
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/etcdmain"
	"k8s.io/component-base/cli"
	"k8s.io/component-base/logs"
	kubectl "k8s.io/kubectl/pkg/cmd"
	kubectlutil "k8s.io/kubectl/pkg/cmd/util"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"

	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
)

const usage = `usage: cluster run DIR [--until-stdin-closes] [-- KUBE-APISERVER-FLAG...]
       cluster node DIR
       cluster etcd|kube-apiserver|kube-controller-manager|kube-scheduler|kubelet|kubectl ARG...
`

// programs are what this binary can be, chosen by the name that it is called
// by or else by its first argument. Each returns the exit code.
var programs = map[string]func(args []string) int{
	"run":                     runSupervisor,
	"node":                    runNode,
	"node-inside":             runInside,
	"etcd":                    runEtcd,
	"kubectl":                 runKubectl,
	"controllers":             runControllers,
	"kube-apiserver":          cobraProgram(apiserver.NewAPIServerCommand),
	"kube-controller-manager": cobraProgram(controllermanager.NewControllerManagerCommand),
	"kube-scheduler":          cobraProgram(func() *cobra.Command { return scheduler.NewSchedulerCommand() }),
	"kubelet":                 cobraProgram(func() *cobra.Command { return kubelet.NewKubeletCommand(context.Background()) }),
}

func main() {
	name, args := filepath.Base(os.Args[0]), os.Args[1:]
	program, ok := programs[name]
	if !ok && len(args) > 0 {
		name, args = args[0], args[1:]
		program, ok = programs[name]
	}
	if !ok {
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
	}
	// Some of the programs read os.Args besides the arguments that they are
	// handed, so it has to look as if each had been started on its own.
	os.Args = append([]string{name}, args...)
	os.Exit(program(args))
}

func cobraProgram(command func() *cobra.Command) func([]string) int {
	return func([]string) int { return cli.Run(command()) }
}

func runEtcd([]string) int {
	etcdmain.Main(os.Args)
	return 0
}

// runKubectl leaves errors to kubectl's own handler, which knows its exit
// codes (1 for a difference in `kubectl diff`, and so on).
func runKubectl([]string) int {
	_, _ = logs.GlogSetter(kubectl.GetLogVerbosity(os.Args))
	if err := cli.RunNoErrOutput(kubectl.NewDefaultKubectlCommand()); err != nil {
		kubectlutil.CheckErr(err)
	}
	return 0
}
