{{/* What the objects are called. */}}
{{- define "kso.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 46 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 46 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 46 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* What cluster-scoped objects are called: releases of one name can be in several namespaces. */}}
{{- define "kso.clusterName" -}}
{{- printf "%s.%s" (include "kso.fullname" .) .Release.Namespace -}}
{{- end -}}

{{- define "kso.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "kso.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* The operator, as the API server calls it. */}}
{{- define "kso.userName" -}}
{{- printf "system:serviceaccount:%s:%s" .Release.Namespace (include "kso.serviceAccountName" .) -}}
{{- end -}}

{{- define "kso.selector" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end -}}

{{- define "kso.emulatorSelector" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: emulator
{{- end -}}

{{- define "kso.labels" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "kso.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{- printf "%s@%s" .repository .digest -}}
{{- else -}}
{{- printf "%s:%s" .repository (default $.Chart.AppVersion .tag) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "kso.emulatorImage" -}}
{{- printf "%s:%s" .Values.emulator.image.repository (.Values.emulator.image.tag | default .Values.image.tag | default .Chart.AppVersion) -}}
{{- end -}}

{{- define "kso.emulatorName" -}}
{{- printf "%s-emulator" (include "kso.fullname" .) -}}
{{- end -}}

{{- define "kso.emulatorHost" -}}
{{- printf "%s.%s.svc" (include "kso.emulatorName" .) .Release.Namespace -}}
{{- end -}}

{{/* The Pod Security Standard "restricted", and less. */}}
{{- define "kso.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "kso.containerSecurity" -}}
allowPrivilegeEscalation: false
privileged: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/* What the operator does in a namespace that it looks at. */}}
{{- define "kso.rules" -}}
- apiGroups: [alikms.dev]
  resources: [kmssecrets]
  verbs: [get, list, watch]
- apiGroups: [alikms.dev]
  resources: [kmssecrets/status]
  verbs: [patch]
- apiGroups: [alikms.dev]
  resources: [kmsstores]
  verbs: [list, watch]
- apiGroups: [alikms.dev]
  resources: [kmsstores/status]
  verbs: [patch]
- apiGroups: [""]
  resources: [secrets]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [configmaps]
  verbs: [list, watch]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- if .Values.tokenRequests.enabled }}
- apiGroups: [""]
  resources: [serviceaccounts]
  verbs: [get]
- apiGroups: [""]
  resources: [serviceaccounts/token]
  verbs: [create]
{{- end }}
{{- if .Values.rolloutRestart.enabled }}
- apiGroups: [apps]
  resources: [deployments, statefulsets, daemonsets]
  verbs: [get, patch]
{{- end }}
{{- end -}}

{{/* What it does besides, where it looks at the whole cluster. */}}
{{- define "kso.clusterRules" -}}
- apiGroups: [alikms.dev]
  resources: [clusterkmsstores]
  verbs: [list, watch]
- apiGroups: [alikms.dev]
  resources: [clusterkmsstores/status]
  verbs: [patch]
- apiGroups: [""]
  resources: [namespaces]
  verbs: [list, watch]
- apiGroups: [apiextensions.k8s.io]
  resources: [customresourcedefinitions]
  verbs: [list, watch]
{{- end -}}
