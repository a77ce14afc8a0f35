package main

import (
	"bytes"
	"encoding/json"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
)

// pod says what a namespace that enforces the restricted profile of the Pod Security Standards has against a Pod, by the
// newest version of the profile, or which of its fields nobody knows.
func pod(object map[string]any) []string {
	text, err := json.Marshal(object)
	if err != nil {
		fail(err)
	}
	strict := json.NewDecoder(bytes.NewReader(text))
	strict.DisallowUnknownFields()
	var read corev1.Pod
	if err := strict.Decode(&read); err != nil {
		return []string{err.Error()}
	}
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		fail(err)
	}
	restricted := api.LevelVersion{Level: api.LevelRestricted, Version: api.LatestVersion()}
	found := []string{}
	for _, result := range evaluator.EvaluatePod(restricted, &read.ObjectMeta, &read.Spec) {
		if !result.Allowed {
			found = append(found, result.ForbiddenReason+": "+result.ForbiddenDetail)
		}
	}
	return found
}
