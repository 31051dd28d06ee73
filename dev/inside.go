package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

// The network inside: pods are on a bridge, whose address is the node's.
const (
	bridge    = "pods"
	nodeIP    = "10.0.1.1"
	podPrefix = "/24"
)

// runInside is the first process of a node's own namespaces. It does not collect
// the exit codes of orphans, as an init would: they end with the node.
func runInside(args []string) int {
	runtime.LockOSThread()
	if len(args) != 2 {
		fmt.Fprint(os.Stderr, usage)
		return 2
	}
	if err := runPods(nodeFiles{args[0]}, args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func runPods(files nodeFiles, kubeletPort string) error {
	if err := hideMachine(files); err != nil {
		return err
	}
	if err := makeNetwork(); err != nil {
		return err
	}
	if err := serveServices(files); err != nil {
		return err
	}
	if err := serve("unix", files.kubeletSocket(), "tcp", net.JoinHostPort(nodeIP, kubeletPort)); err != nil {
		return err
	}
	// Given from outside, and held until this process ends.
	lock := os.NewFile(3, "node.lock")
	programs := newChildren(files.dir, lock)
	never := make(chan struct{})
	if err := programs.startCommand("containerd", exec.Command("containerd", "--config", files.path("containerd.toml"))); err != nil {
		return err
	}
	containerd := func() error { return dials("unix", files.path("containerd.sock")) }
	if err := programs.waitFor("containerd to listen", startLimit, never, containerd); err != nil {
		return err
	}
	if err := programs.start("kubelet", "kubelet",
		"--config="+files.path("kubelet.yaml"), "--kubeconfig="+files.kubeconfig(), "--root-dir="+files.path("kubelet"),
		"--hostname-override="+nodeName, "--node-ip="+nodeIP, "--port="+kubeletPort); err != nil {
		return err
	}
	return programs.waitFor("", 0, never, nil)
}

// hideMachine puts folders of the node's own over those of the machine that
// containerd, runc, CNI plugins and kubelet write to wherever they are told to
// keep their files.
func hideMachine(files nodeFiles) error {
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("cannot make mounts private: %w", err)
	}
	if err := syscall.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("cannot mount /proc: %w", err)
	}
	for _, folder := range []string{"/run", "/var/lib", "/var/log"} {
		if strings.HasPrefix(files.dir, folder+"/") {
			return fmt.Errorf("the cluster's directory cannot be below %s", folder)
		}
		if err := syscall.Mount("tmpfs", folder, "tmpfs", 0, "mode=0755"); err != nil {
			return fmt.Errorf("cannot mount over %s: %w", folder, err)
		}
	}
	return keepKernelSettings()
}

// keepKernelSettings lets kubelet change copies of the settings of the kernel
// that it wants to have its own way.
func keepKernelSettings() error {
	for _, name := range []string{
		"vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops",
		"kernel/keys/root_maxkeys", "kernel/keys/root_maxbytes",
	} {
		setting := filepath.Join("/proc/sys", name)
		value, err := os.ReadFile(setting)
		if errors.Is(err, os.ErrNotExist) {
			continue
		} else if err != nil {
			return err
		}
		own := filepath.Join("/run", strings.ReplaceAll(name, "/", "."))
		if err := os.WriteFile(own, value, 0o644); err != nil {
			return err
		}
		if err := syscall.Mount(own, setting, "", syscall.MS_BIND, ""); err != nil {
			return fmt.Errorf("cannot mount over %s: %w", setting, err)
		}
	}
	return nil
}

// makeNetwork makes the bridge, and all addresses of Services this node's own.
func makeNetwork() error {
	for _, command := range []string{
		"link set lo up",
		"link add name " + bridge + " type bridge",
		"address add " + nodeIP + podPrefix + " dev " + bridge,
		"link set " + bridge + " up",
		"route add local " + serviceRange + " dev lo",
	} {
		if output, err := exec.Command("ip", strings.Fields(command)...).CombinedOutput(); err != nil {
			return fmt.Errorf("ip %s: %w: %s", command, err, output)
		}
	}
	return nil
}

// serveServices plays kube-proxy and the cluster's DNS.
func serveServices(files nodeFiles) error {
	if err := serve("tcp", apiAddress, "unix", files.apiSocket()); err != nil {
		return err
	}
	config, err := clientcmd.BuildConfigFromFlags("", files.kubeconfig())
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	services := watchServices(client)
	names, err := net.ListenPacket("udp", net.JoinHostPort(nodeIP, "53"))
	if err != nil {
		return err
	}
	go services.answerNames(names)
	return nil
}

func dials(network, address string) error {
	connection, err := net.Dial(network, address)
	if err != nil {
		return err
	}
	return connection.Close()
}
