// Prints, as JSON, what KubeRay's operator makes of the RayCluster in the file that is named: the head's service and
// a pod of each group, by the operator's own code, after its own validation. A second file may hold the objects beside
// it. An unknown field is an error in either.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"

	rayv1 "github.com/ray-project/kuberay/ray-operator/apis/ray/v1"
	"github.com/ray-project/kuberay/ray-operator/controllers/ray/common"
	"github.com/ray-project/kuberay/ray-operator/controllers/ray/utils"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func checkObjects(text []byte) {
	for _, one := range bytes.Split(text, []byte("\n---\n")) {
		var kind metav1.TypeMeta
		check(yaml.Unmarshal(one, &kind))
		object := map[string]any{
			"Secret": &corev1.Secret{}, "Service": &corev1.Service{}, "PersistentVolumeClaim": &corev1.PersistentVolumeClaim{},
			"NetworkPolicy": &networkingv1.NetworkPolicy{},
		}[kind.Kind]
		check(yaml.UnmarshalStrict(one, object))
	}
}

func main() {
	ctx := context.Background()
	text, err := os.ReadFile(os.Args[1])
	check(err)
	if len(os.Args) > 2 {
		objects, err := os.ReadFile(os.Args[2])
		check(err)
		checkObjects(objects)
	}
	var c rayv1.RayCluster
	check(yaml.UnmarshalStrict(text, &c))
	if c.Namespace == "" {
		c.Namespace = "default"
	}
	check(utils.ValidateRayClusterMetadata(c.ObjectMeta))
	check(utils.ValidateRayClusterSpec(&c.Spec, c.Annotations))
	fqdn := utils.GenerateFQDNServiceName(ctx, c, c.Namespace)
	port := common.GetHeadPort(c.Spec.HeadGroupSpec.RayStartParams)
	auto := utils.IsAutoscalingEnabled(&c.Spec)
	name := utils.PodName(c.Name, rayv1.HeadNode, true)
	// Before the pods: building those adds ports to the cluster's own containers.
	service, err := common.BuildServiceForHeadPod(ctx, *c.DeepCopy(), nil, nil)
	check(err)
	out := map[string]any{"fqdn": fqdn, "service": service}
	t := common.DefaultHeadPodTemplate(ctx, c, c.Spec.HeadGroupSpec, name, port)
	pods := []any{common.BuildPod(ctx, t, rayv1.HeadNode, c.Spec.HeadGroupSpec.RayStartParams, port, auto, utils.RayClusterCRD, fqdn, nil)}
	for _, g := range c.Spec.WorkerGroupSpecs {
		n := utils.PodName(fmt.Sprintf("%s-%s", c.Name, g.GroupName), rayv1.WorkerNode, true)
		t := common.DefaultWorkerPodTemplate(ctx, c, g, n, fqdn, port, "", 0, 0)
		pods = append(pods, common.BuildPod(ctx, t, rayv1.WorkerNode, g.RayStartParams, port, auto, utils.RayClusterCRD, fqdn, nil))
	}
	out["pods"] = pods
	e := json.NewEncoder(os.Stdout)
	e.SetIndent("", " ")
	check(e.Encode(out))
}
