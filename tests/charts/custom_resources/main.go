// Judges objects by CustomResourceDefinitions as the API server of Kubernetes does when they are created: with its own
// code for unknown fields, defaults, schemas, lists that are sets or maps, metadata and the rules written in CEL.
//
//	custom_resources DEFINITIONS.yaml...
//
// reads one object in JSON from each line of standard input and writes one line for each: a JSON array of what is wrong
// with it, empty when the API server would take it, null when none of the definitions is for its kind. An object of the kind
// MeshConfig is not Kubernetes' but Istio's: its `meshConfig` is read as istiod reads its own configuration. A Pod is held
// to the restricted profile.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"google.golang.org/protobuf/encoding/protojson"
	mesh "istio.io/api/mesh/v1alpha1"
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	v1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/defaulting"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/listtype"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/objectmeta"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/pruning"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apimachinery/pkg/util/yaml"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
)

// A definition is what one version of a CustomResourceDefinition demands.
type definition struct {
	namespaced bool
	structural *schema.Structural
	schema     validation.SchemaValidator
	rules      *cel.Validator
}

type kind struct{ apiVersion, kind string }

func main() {
	definitions := map[kind]definition{}
	for _, path := range os.Args[1:] {
		if err := read(path, definitions); err != nil {
			fail(fmt.Errorf("%s: %w", path, err))
		}
	}
	lines := bufio.NewReader(os.Stdin)
	for {
		line, err := lines.ReadBytes('\n')
		if len(bytes.TrimSpace(line)) > 0 {
			answer(line, definitions)
		}
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			fail(err)
		}
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

func answer(line []byte, definitions map[kind]definition) {
	var object map[string]any
	if err := yaml.Unmarshal(line, &object); err != nil {
		fail(err)
	}
	apiVersion, _ := object["apiVersion"].(string)
	name, _ := object["kind"].(string)
	wrong := []string(nil)
	if known, ok := definitions[kind{apiVersion, name}]; ok {
		wrong = append([]string{}, known.judge(object)...)
	} else if name == "MeshConfig" {
		wrong = meshConfig(object["meshConfig"])
	} else if name == "Pod" && apiVersion == "v1" {
		wrong = pod(object)
	}
	text, err := json.Marshal(wrong)
	if err != nil {
		fail(err)
	}
	fmt.Println(string(text))
}

func meshConfig(content any) []string {
	text, err := json.Marshal(content)
	if err != nil {
		fail(err)
	}
	if err := protojson.Unmarshal(text, &mesh.MeshConfig{}); err != nil {
		return []string{err.Error()}
	}
	return []string{}
}

// read adds every version of every CustomResourceDefinition in a stream of YAML documents; other documents are left out.
func read(path string, definitions map[kind]definition) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	documents := yaml.NewYAMLReader(bufio.NewReader(file))
	for {
		document, err := documents.Read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		var resource v1.CustomResourceDefinition
		if err := yaml.Unmarshal(document, &resource); err != nil {
			return err
		}
		if resource.Kind != "CustomResourceDefinition" {
			continue
		}
		for _, version := range resource.Spec.Versions {
			made, err := compile(version, resource.Spec.Scope)
			if err != nil {
				return fmt.Errorf("%s %s: %w", resource.Name, version.Name, err)
			}
			definitions[kind{resource.Spec.Group + "/" + version.Name, resource.Spec.Names.Kind}] = made
		}
	}
}

func compile(version v1.CustomResourceDefinitionVersion, scope v1.ResourceScope) (definition, error) {
	var internal apiextensions.CustomResourceValidation
	if err := v1.Convert_v1_CustomResourceValidation_To_apiextensions_CustomResourceValidation(version.Schema, &internal, nil); err != nil {
		return definition{}, err
	}
	structural, err := schema.NewStructural(internal.OpenAPIV3Schema)
	if err != nil {
		return definition{}, err
	}
	validator, _, err := validation.NewSchemaValidator(internal.OpenAPIV3Schema)
	if err != nil {
		return definition{}, err
	}
	return definition{
		namespaced: scope == v1.NamespaceScoped,
		structural: structural,
		schema:     validator,
		rules:      cel.NewValidator(structural, true, celconfig.PerCallLimit),
	}, nil
}

// judge changes the object: what is not known is removed and what is not said gets its default, as it would be stored.
func (d definition) judge(object map[string]any) []string {
	ctx := context.Background()
	found := []string{}
	options := schema.UnknownFieldPathOptions{TrackUnknownFieldPaths: true}
	for _, path := range pruning.PruneWithOptions(object, d.structural, true, options) {
		found = append(found, path+": unknown field")
	}
	found = append(found, d.metadata(object)...)
	defaulting.Default(object, d.structural)
	errs := validation.ValidateCustomResource(nil, object, d.schema)
	errs = append(errs, listtype.ValidateListSetsAndMaps(nil, d.structural, object)...)
	errs = append(errs, objectmeta.Validate(ctx, nil, object, d.structural, true)...)
	if len(errs) == 0 { // rules are asked of what has the right form only
		broken, _ := d.rules.Validate(ctx, nil, d.structural, object, nil, celconfig.RuntimeCELCostBudget)
		errs = append(errs, broken...)
	}
	for _, err := range errs {
		found = append(found, err.Error())
	}
	slices.Sort(found)
	return found
}

func (d definition) metadata(object map[string]any) []string {
	text, err := json.Marshal(object["metadata"])
	if err != nil {
		return []string{err.Error()}
	}
	strict := json.NewDecoder(bytes.NewReader(text))
	strict.DisallowUnknownFields()
	var meta metav1.ObjectMeta
	if err := strict.Decode(&meta); err != nil {
		return []string{"metadata: " + err.Error()}
	}
	found := []string{}
	named := apivalidation.NameIsDNSSubdomain
	for _, err := range apivalidation.ValidateObjectMeta(&meta, d.namespaced, named, field.NewPath("metadata")) {
		found = append(found, err.Error())
	}
	return found
}
