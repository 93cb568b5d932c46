{{/*
What several templates need. Values were held against values.schema.json before.
*/}}

{{- define "starling.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* The longest suffix is -trial-postgresql, and names of Services have at most 63 letters. */}}
{{- define "starling.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride }}
{{- $full := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) }}
{{- default $full .Values.fullnameOverride | trunc 44 | trimSuffix "-" }}
{{- end }}

{{/* Never change these: the selector of a Deployment is immutable. */}}
{{- define "starling.selector" -}}
app.kubernetes.io/name: {{ include "starling.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "starling.labels" -}}
{{- $own := dict
  "helm.sh/chart" (printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-")
  "app.kubernetes.io/version" (.root.Chart.AppVersion | replace "+" "_" | trunc 63)
  "app.kubernetes.io/managed-by" .root.Release.Service
  "app.kubernetes.io/part-of" "starling" }}
{{- merge (include "starling.selector" . | fromYaml) $own (.labels | default dict) .root.Values.commonLabels | toYaml }}
{{- end }}

{{/* Without the chart's version: a new chart that changes nothing else must not end sessions. */}}
{{- define "starling.podLabels" -}}
{{- merge (include "starling.selector" . | fromYaml) .root.Values.podLabels .root.Values.commonLabels | toYaml }}
{{- end }}

{{/*
Metadata of an object: root, component, and, if there are such: suffix of the name, labels, annotations.
*/}}
{{- define "starling.metadata" -}}
name: {{ include "starling.fullname" .root }}{{ .suffix }}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- include "starling.labels" . | nindent 2 }}
{{- with merge (dict) (.annotations | default dict) .root.Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "starling.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}
{{- end }}
{{- end }}
{{- end }}

{{- define "starling.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "starling.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{/* The Secret with the certificate for IMAP; empty: there is none. */}}
{{- define "starling.tlsSecret" -}}
{{- if .Values.tls.existingSecret }}
{{- .Values.tls.existingSecret }}
{{- else if .Values.tls.certificate.enabled }}
{{- include "starling.fullname" . }}-tls
{{- else if .Values.trial.enabled }}
{{- include "starling.fullname" . }}-trial-tls
{{- end }}
{{- end }}

{{/* The listeners that are on, and the container's port of each. */}}
{{- define "starling.ports" -}}
{{- with .Values.listeners }}
{{- if .imap }}
imap: 1143
{{- end }}
{{- if and .imaps (include "starling.tlsSecret" $) }}
imaps: 1993
{{- end }}
{{- if .lmtp }}
lmtp: 1124
{{- end }}
{{- end }}
{{- end }}

{{/*
Where the credentials are: for each of postgres, s3 and nats the Secret's name, and the key in it of each thing that is
there. A Secret that was given; else what the chart makes of values, or for a trial.
*/}}
{{- define "starling.secrets" -}}
{{- $own := include "starling.fullname" . }}
{{- $postgres := dict "name" $own "dsn" "dsn" }}
{{- $s3 := dict }}
{{- $nats := dict }}
{{- if .Values.trial.enabled }}
{{- $own = printf "%s-trial" $own }}
{{- $postgres = dict "name" $own "dsn" "dsn" }}
{{- $s3 = dict "name" $own "access" "s3-access-key" "secret" "s3-secret-key" }}
{{- $nats = dict "name" $own "user" "nats-user" "password" "nats-password" }}
{{- else }}
{{- with .Values.postgres.existingSecret }}
{{- if .name }}{{ $postgres = dict "name" .name "dsn" .key }}{{ end }}
{{- end }}
{{- with .Values.s3.existingSecret }}
{{- if .name }}{{ $s3 = dict "name" .name "access" .accessKeyKey "secret" .secretKeyKey }}
{{- else if $.Values.s3.accessKey }}{{ $s3 = dict "name" $own "access" "s3-access-key" "secret" "s3-secret-key" }}{{ end }}
{{- end }}
{{- range $what := tuple "user" "password" "token" "credentials" "nkey" }}
{{- with $.Values.nats.existingSecret }}
{{- if and .name (get . (printf "%sKey" $what)) }}{{ $_ := set $nats $what (get . (printf "%sKey" $what)) }}{{ $_ := set $nats "name" .name }}
{{- else if and (not .name) (get $.Values.nats $what) }}{{ $_ := set $nats $what (printf "nats-%s" $what) }}{{ $_ := set $nats "name" $own }}{{ end }}
{{- end }}
{{- end }}
{{- end }}
{{- dict "postgres" $postgres "s3" $s3 "nats" $nats | toYaml }}
{{- end }}

{{/* The Secret that the chart makes of credentials that were given as values; empty: there were none. */}}
{{- define "starling.secretData" -}}
{{- $data := dict }}
{{- with .Values.postgres.dsn }}{{ $_ := set $data "dsn" . }}{{ end }}
{{- with .Values.s3.accessKey }}{{ $_ := set $data "s3-access-key" . }}{{ end }}
{{- with .Values.s3.secretKey }}{{ $_ := set $data "s3-secret-key" . }}{{ end }}
{{- range $what := tuple "user" "password" "token" }}
{{- with get $.Values.nats $what }}{{ $_ := set $data (printf "nats-%s" $what) . }}{{ end }}
{{- end }}
{{- with $data }}{{ toYaml . }}{{ end }}
{{- end }}

{{/* The program's configuration: what values say, and what follows from the chart. Files of Secrets are named, never their content. */}}
{{- define "starling.config" -}}
{{- $ports := include "starling.ports" . | fromYaml }}
{{- $secrets := include "starling.secrets" . | fromYaml }}
{{- $imap := dict "listen" (list) "listen_tls" (list) }}
{{- with $ports.imap }}{{ $_ := set $imap "listen" (list (printf ":%v" .)) }}{{ end }}
{{- with $ports.imaps }}{{ $_ := set $imap "listen_tls" (list (printf ":%v" .)) }}{{ end }}
{{- $lmtp := dict "listen" (list) }}
{{- with $ports.lmtp }}{{ $_ := set $lmtp "listen" (list (printf ":%v" .)) }}{{ end }}
{{- $tls := dict }}
{{- if include "starling.tlsSecret" . }}
{{- $tls = dict "cert" "/etc/starling/tls/tls.crt" "key" "/etc/starling/tls/tls.key" }}
{{- with .Values.tls.additionalSecrets }}
{{- $folders := list }}
{{- range . }}{{ $folders = append $folders (printf "/etc/starling/certificates/%s" .) }}{{ end }}
{{- $_ := set $tls "folders" $folders }}
{{- end }}
{{- end }}
{{- $s3 := pick .Values.s3 "endpoint" "region" "bucket" "prefix" "addressing" }}
{{- if .Values.trial.enabled }}
{{- $s3 = dict "endpoint" (printf "http://%s-trial-s3:7070" (include "starling.fullname" .)) "bucket" "starling" "addressing" "path" }}
{{- end }}
{{- if $secrets.s3 }}
{{- $_ := set $s3 "access_key_file" "/etc/starling/s3/access-key" }}
{{- $_ := set $s3 "secret_key_file" "/etc/starling/s3/secret-key" }}
{{- end }}
{{- if .Values.s3.ca.existingSecret }}{{ $_ := set $s3 "ca_file" "/etc/starling/s3-ca/ca.crt" }}{{ end }}
{{- $cache := dict }}
{{- with include "starling.cacheBytes" . }}
{{- $cache = dict "dir" "/var/cache/starling" "disk" (int64 .) }}
{{- end }}
{{- $nats := dict "urls" .Values.nats.urls }}
{{- if .Values.trial.enabled }}{{ $nats = dict "urls" (list (printf "nats://%s-trial-nats:4222" (include "starling.fullname" .))) }}{{ end }}
{{- if $secrets.nats.credentials }}{{ $_ := set $nats "credentials" "/etc/starling/nats/credentials" }}{{ end }}
{{- if $secrets.nats.nkey }}{{ $_ := set $nats "nkey" "/etc/starling/nats/nkey" }}{{ end }}
{{- if .Values.nats.tls.existingSecret }}
{{- $_ := set $nats "ca_file" "/etc/starling/nats-tls/ca.crt" }}
{{- if .Values.nats.tls.clientCertificate }}
{{- $_ := set $nats "cert" "/etc/starling/nats-tls/tls.crt" }}
{{- $_ := set $nats "key" "/etc/starling/nats-tls/tls.key" }}
{{- end }}
{{- end }}
{{- $own := dict
  "imap" $imap "lmtp" $lmtp "nats" $nats
  "postgres" (dict "dsn_file" "/etc/starling/postgres/dsn")
  "blobs" (dict "s3" $s3)
  "mail" (dict "temp_dir" "/var/tmp/starling")
  "admin" (dict "listen" (list ":8080"))
  "shutdown_delay" (printf "%vs" .Values.shutdown.delaySeconds)
  "shutdown_grace" (printf "%vs" .Values.shutdown.graceSeconds) }}
{{- with $tls }}{{ $_ := set $own "tls" . }}{{ end }}
{{- with $cache }}{{ $_ := set $own.blobs "cache" . }}{{ end }}
{{- merge $own (deepCopy .Values.config) | toYaml }}
{{- end }}

{{/* The size of the cache on disk in octets; empty: there is none. */}}
{{- define "starling.cacheBytes" -}}
{{- with .Values.cache.disk }}
{{- $unit := dict "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 }}
{{- mul (regexFind "^[0-9]+" . | int64) (get $unit (regexFind "[MGT]i$" .)) }}
{{- end }}
{{- end }}

{{/* A volume of one key of a Secret, or of some: name, secret, items (file name: key). */}}
{{- define "starling.secretVolume" -}}
- name: {{ .name }}
  secret:
    secretName: {{ .secret }}
    defaultMode: 0440
    {{- with .items }}
    items:
      {{- range $path, $key := . }}
      - {key: {{ $key | quote }}, path: {{ $path | quote }}}
      {{- end }}
    {{- end }}
{{- end }}

{{/* What to run starling with: pod fields that the Deployment and the migration share. */}}
{{- define "starling.podSpec" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
automountServiceAccountToken: false
# A Service starling-imap would put STARLING_IMAP_PORT into the environment, and no setting is called so.
enableServiceLinks: false
securityContext:
  {{- toYaml .Values.podSecurityContext | nindent 2 }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
