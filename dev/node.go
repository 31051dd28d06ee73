package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

// nodeName is what the apiserver dials for logs and exec, as it is told to
// prefer the hostname of nodes: there, a relay of ours takes over.
const nodeName = "localhost"

// apiAddress is where the apiserver is for the node and its pods.
const apiAddress = "10.0.0.1:443"

// nodeFiles are what the two halves of a node share: the one outside, in the
// machine's network, and the one inside, in namespaces of its own. A socket that
// is a file connects them.
type nodeFiles struct{ dir string }

func (f nodeFiles) path(name string) string { return filepath.Join(f.dir, name) }
func (f nodeFiles) apiSocket() string       { return f.path("api.sock") }
func (f nodeFiles) kubeletSocket() string   { return f.path("kubelet.sock") }
func (f nodeFiles) kubeconfig() string      { return f.path("kubeconfig") }

// runNode adds a node to the cluster of a directory until it's told to end.
func runNode(args []string) int {
	// Children die with the thread that started them, see children.
	runtime.LockOSThread()
	if len(args) != 1 {
		fmt.Fprint(os.Stderr, usage)
		return 2
	}
	if err := superviseNode(args[0], stopOnSignals()); err != nil && !errors.Is(err, errStopped) {
		fmt.Fprintf(os.Stderr, "node of the cluster in %s: %v\n", args[0], err)
		return 1
	}
	return 0
}

func superviseNode(cluster string, stop <-chan struct{}) error {
	begin := time.Now()
	files := nodeFiles{filepath.Join(cluster, "node")}
	lock, err := lockDir(files.dir, "node.lock")
	if err != nil {
		return err
	}
	ready, pidFile := files.path("ready"), files.path("supervisor.pid")
	removeAll := func() {
		for _, file := range []string{ready, pidFile, files.apiSocket(), files.kubeletSocket()} {
			_ = os.Remove(file)
		}
	}
	removeAll()
	defer removeAll()
	if err := os.WriteFile(pidFile, []byte(strconv.Itoa(os.Getpid())+"\n"), 0o644); err != nil {
		return err
	}

	kubeconfig := filepath.Join(cluster, "kubeconfig")
	server, err := writeNodeKubeconfig(kubeconfig, files.kubeconfig())
	if err != nil {
		return err
	}
	if err := serve("unix", files.apiSocket(), "tcp", server); err != nil {
		return err
	}
	port, err := freePort()
	if err != nil {
		return err
	}
	if err := serve("tcp", loopback(port), "unix", files.kubeletSocket()); err != nil {
		return err
	}

	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	if err := forgetNode(client); err != nil {
		return err
	}

	programs := newChildren(files.dir, lock)
	defer removeCgroups(files)
	defer programs.stop()
	if err := programs.start("kube-scheduler", "kube-scheduler",
		"--kubeconfig="+kubeconfig, "--authentication-kubeconfig="+kubeconfig, "--authorization-kubeconfig="+kubeconfig,
		"--leader-elect=false", "--secure-port=0"); err != nil {
		return err
	}
	if err := programs.startCommand("inside", inside(files, port)); err != nil {
		return err
	}
	if err := programs.waitFor("the node to be ready", startLimit, stop, func() error { return nodeIsReady(client) }); err != nil {
		return err
	}
	line := fmt.Sprintf("node is ready after %.1f s\n", time.Since(begin).Seconds())
	if err := os.WriteFile(ready, []byte(line), 0o644); err != nil {
		return err
	}
	fmt.Print(line)
	return programs.waitFor("", 0, untilGone(kubeconfig, stop), nil)
}

// untilGone also tells to stop when the cluster has ended: its kubeconfig goes.
func untilGone(kubeconfig string, stop <-chan struct{}) <-chan struct{} {
	either := make(chan struct{})
	go func() {
		defer close(either)
		for {
			select {
			case <-stop:
				return
			case <-time.After(time.Second):
				if _, err := os.Stat(kubeconfig); err != nil {
					return
				}
			}
		}
	}()
	return either
}

// inside is the other half. All that runs there, containers included, ends with
// its first process, the one started here, as that is the first of a namespace
// of processes; mounts, interfaces and addresses go with it.
func inside(files nodeFiles, port int) *exec.Cmd {
	cmd := self("node-inside", files.dir, strconv.Itoa(port))
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS | syscall.CLONE_NEWNET | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS,
	}
	return cmd
}

// writeNodeKubeconfig copies a kubeconfig, with the address that the apiserver
// has inside; it returns the one that it has outside.
func writeNodeKubeconfig(from, to string) (server string, err error) {
	config, err := clientcmd.LoadFromFile(from)
	if err != nil {
		return "", fmt.Errorf("no cluster is running: %w", err)
	}
	for _, cluster := range config.Clusters {
		address, err := url.Parse(cluster.Server)
		if err != nil {
			return "", err
		}
		server = address.Host
		cluster.Server = "https://" + apiAddress
	}
	return server, clientcmd.WriteToFile(*config, to)
}

// forgetNode removes what an earlier node of this cluster has said of itself,
// which is that it's ready.
func forgetNode(client kubernetes.Interface) error {
	err := client.CoreV1().Nodes().Delete(context.Background(), nodeName, metav1.DeleteOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

func nodeIsReady(client kubernetes.Interface) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	node, err := client.CoreV1().Nodes().Get(ctx, nodeName, metav1.GetOptions{})
	if err != nil {
		return err
	}
	for _, condition := range node.Status.Conditions {
		if condition.Type == corev1.NodeReady && condition.Status != corev1.ConditionTrue {
			return errors.New(condition.Message)
		}
	}
	// The taint goes a moment after the condition.
	if len(node.Spec.Taints) > 0 {
		return fmt.Errorf("it has the taint %s", node.Spec.Taints[0].Key)
	}
	if len(node.Status.Conditions) == 0 {
		return errors.New("it has no conditions yet")
	}
	return nil
}

// removeCgroups removes what containers that were killed leave behind. They are
// known by containerd's folders for them, since others may have containers here.
func removeCgroups(files nodeFiles) {
	containers, _ := filepath.Glob(files.path("state/io.containerd.runtime.v2.task/k8s.io/*"))
	for _, container := range containers {
		id := filepath.Base(container)
		// Version 1 has a hierarchy for each controller, version 2 has one.
		for _, pattern := range []string{"/sys/fs/cgroup/*/k8s.io/", "/sys/fs/cgroup/k8s.io/"} {
			groups, _ := filepath.Glob(pattern + id)
			for _, group := range groups {
				_ = os.Remove(group)
				// Fails while somebody else has a container there.
				_ = os.Remove(filepath.Dir(group))
			}
		}
	}
}
