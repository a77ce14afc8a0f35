// Command authorino serves Authorino's own authorization service for one AuthConfig file, without a cluster.
//
// Authorino reads its AuthConfig resources from the Kubernetes API only. Here its own reconciler reads the resource from
// controller-runtime's in-memory client instead; what it makes of it, the index, the service and the gRPC server's options
// are those of Authorino's main.
package main

import (
	"context"
	"flag"
	"log"
	"net"
	"os"
	"strconv"

	auth "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	grpc_prometheus "github.com/grpc-ecosystem/go-grpc-prometheus"
	"github.com/kuadrant/authorino/api/v1beta3"
	"github.com/kuadrant/authorino/controllers"
	"github.com/kuadrant/authorino/pkg/evaluators"
	"github.com/kuadrant/authorino/pkg/index"
	authorino_log "github.com/kuadrant/authorino/pkg/log"
	"github.com/kuadrant/authorino/pkg/service"
	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"google.golang.org/grpc"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/yaml"
)

// Authorino's own value.
const maxConcurrentStreams = 10000

func main() {
	address := flag.String("address", "127.0.0.1:0", "host:port to listen on")
	file := flag.String("auth-config", "", "YAML file of one AuthConfig")
	level := flag.String("log-level", "info", "Authorino's log level")
	cacheMegabytes := flag.String("evaluator-cache-size", "1", "Authorino's option of the same name")
	flag.Parse()

	options := authorino_log.Options{Level: authorino_log.ToLogLevel(*level), Mode: authorino_log.ToLogMode("production")}
	authorino_log.SetLogger(authorino_log.NewLogger(options), options)
	size, err := strconv.Atoi(*cacheMegabytes)
	if err != nil {
		log.Fatal(err)
	}
	evaluators.EvaluatorCacheSize = size

	configs := index.NewIndex()
	if err := reconcile(*file, configs); err != nil {
		log.Fatal(err)
	}
	listener, err := net.Listen("tcp", *address)
	if err != nil {
		log.Fatal(err)
	}
	server := grpc.NewServer(
		grpc.MaxConcurrentStreams(maxConcurrentStreams),
		grpc.ChainUnaryInterceptor(grpc_prometheus.UnaryServerInterceptor),
		grpc.StatsHandler(otelgrpc.NewServerHandler()),
	)
	auth.RegisterAuthorizationServer(server, &service.AuthService{Index: configs})
	grpc_prometheus.Register(server)
	grpc_prometheus.EnableHandlingTimeHistogram()
	log.Fatal(server.Serve(listener))
}

func reconcile(file string, configs index.Index) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	resource := &v1beta3.AuthConfig{}
	if err := yaml.UnmarshalStrict(text, resource); err != nil {
		return err
	}
	scheme := runtime.NewScheme()
	if err := clientgoscheme.AddToScheme(scheme); err != nil {
		return err
	}
	if err := v1beta3.AddToScheme(scheme); err != nil {
		return err
	}
	client := fake.NewClientBuilder().WithScheme(scheme).WithObjects(resource).WithStatusSubresource(resource).Build()
	reconciler := &controllers.AuthConfigReconciler{
		Client:        client,
		Index:         configs,
		StatusReport:  controllers.NewStatusReportMap(),
		Logger:        authorino_log.WithName("reconciler"),
		LabelSelector: controllers.ToLabelSelector(""),
	}
	name := types.NamespacedName{Namespace: resource.Namespace, Name: resource.Name}
	// the keys' fetches live as long as this context
	_, err = reconciler.Reconcile(context.Background(), ctrl.Request{NamespacedName: name})
	return err
}
