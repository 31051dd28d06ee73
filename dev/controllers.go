package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/component-base/cli"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	"k8s.io/kubernetes/pkg/controller/garbagecollector"
)

// discoveryPeriod is how often the garbage collector looks for new kinds. The
// controller manager's own does so every 30 seconds, and until then it does not
// notice that an object of a new CRD is gone: too slow for a test that has just
// installed its CRD.
const discoveryPeriod = time.Second

// notRun are the controllers that the controller manager leaves out: its garbage
// collector, for ours, and what only clusters with disks, devices or metrics
// need. Those for disks would also make folders outside the cluster's own.
var notRun = []string{
	"garbage-collector-controller",
	"persistentvolume-binder-controller",
	"persistentvolume-attach-detach-controller",
	"persistentvolume-expander-controller",
	"persistentvolume-protection-controller",
	"persistentvolumeclaim-protection-controller",
	"volumeattributesclass-protection-controller",
	"ephemeral-volume-controller",
	"device-taint-eviction-controller",
	"resourceclaim-controller",
	"horizontal-pod-autoscaler-controller",
}

// runControllers is the controller manager without its garbage collector, and
// beside it in the same process the same garbage collector at our pace.
func runControllers(args []string) int {
	kubeconfig := ""
	for _, arg := range args {
		if value, ok := strings.CutPrefix(arg, "--kubeconfig="); ok {
			kubeconfig = value
		}
	}
	os.Args = append(os.Args, "--controllers=*,-"+strings.Join(notRun, ",-"))
	if err := startGarbageCollector(context.Background(), kubeconfig); err != nil {
		fmt.Fprintln(os.Stderr, "garbage collector:", err)
		return 1
	}
	return cli.Run(controllermanager.NewControllerManagerCommand())
}

func startGarbageCollector(ctx context.Context, kubeconfig string) error {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return err
	}
	config.QPS, config.Burst = 100, 200
	// As in the controller manager, so that RBAC and admission see the caller
	// that they see in any cluster.
	config.Impersonate = rest.ImpersonationConfig{
		UserName: "system:serviceaccount:kube-system:generic-garbage-collector",
		Groups:   []string{"system:serviceaccounts", "system:serviceaccounts:kube-system", "system:authenticated"},
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	metadataClient, err := metadata.NewForConfig(config)
	if err != nil {
		return err
	}
	started := make(chan struct{})
	close(started)
	collector, err := garbagecollector.NewGarbageCollector(ctx, client, metadataClient,
		restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(client.Discovery())),
		garbagecollector.DefaultIgnoredResources(),
		metadataOnly{metadatainformer.NewSharedInformerFactory(metadataClient, 0)}, started)
	if err != nil {
		return err
	}
	go collector.Run(ctx, 5, discoveryPeriod)
	go collector.Sync(ctx, client.Discovery(), discoveryPeriod)
	return nil
}

// metadataOnly gives the garbage collector informers that don't hold whole
// objects.
type metadataOnly struct {
	metadatainformer.SharedInformerFactory
}

func (m metadataOnly) ForResource(resource schema.GroupVersionResource) (informers.GenericInformer, error) {
	return m.SharedInformerFactory.ForResource(resource), nil
}
