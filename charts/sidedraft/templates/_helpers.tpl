{{- define "sidedraft.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "sidedraft.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else if contains (include "sidedraft.name" .) .Release.Name }}
{{- .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "sidedraft.name" .) | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "sidedraft.selector" -}}
app.kubernetes.io/name: {{ include "sidedraft.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "sidedraft.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "sidedraft.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "sidedraft.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "sidedraft.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{/* An image's name. Takes {image, tag}: the values of an image, and the tag to use if they have none. */}}
{{- define "sidedraft.imageName" -}}
{{- if .image.digest }}
{{- printf "%s@%s" .image.repository .image.digest }}
{{- else }}
{{- printf "%s:%s" .image.repository (default .tag .image.tag) }}
{{- end }}
{{- end }}

{{/* What a schema cannot say: values that are missing, or that contradict each other. */}}
{{- define "sidedraft.check" -}}
{{- $values := .Values }}
{{- $_ := required "image.repository is required: where you keep Sidedraft's image" $values.image.repository }}
{{- if eq $values.mode "sidecar" }}
  {{- $_ := required "vllm.model is required in mode sidecar: what `vllm serve` is to serve" $values.vllm.model }}
  {{- if $values.sidedraft.upstream }}
    {{- fail "sidedraft.upstream is for mode standalone; in mode sidecar it is the vLLM of the same pod" }}
  {{- end }}
  {{- if eq (int $values.vllm.port) (int $values.sidedraft.port) }}
    {{- fail (printf "vllm.port and sidedraft.port are both %d, and in one pod" (int $values.vllm.port)) }}
  {{- end }}
  {{- if le (int $values.terminationGracePeriodSeconds) (int $values.vllm.drainSeconds) }}
    {{- fail "terminationGracePeriodSeconds must be longer than vllm.drainSeconds" }}
  {{- end }}
{{- else }}
  {{- $_ := required "sidedraft.upstream is required in mode standalone: http://host:port of vLLM" $values.sidedraft.upstream }}
  {{- if le (int $values.terminationGracePeriodSeconds) (add 5 (int (ceil $values.sidedraft.drainTimeoutSeconds))) }}
    {{- fail "terminationGracePeriodSeconds must be longer than sidedraft.drainTimeoutSeconds and five" }}
  {{- end }}
{{- end }}
{{- $own := $values.sidedraft }}
{{- if ne $own.gpu.mode "none" }}
  {{- $_ := required (printf "sidedraft.gpu.mode %s needs sidedraft.draftModel.path: nothing else computes on a GPU" $own.gpu.mode) $own.draftModel.path }}
{{- end }}
{{- if eq $own.gpu.mode "shared" }}
  {{- if ne $values.mode "sidecar" }}
    {{- fail "sidedraft.gpu.mode shared is for mode sidecar: there is no vLLM in the pod to share with" }}
  {{- end }}
  {{- $_ := required "sidedraft.gpu.mode shared needs sidedraft.gpu.claimTemplate: a ResourceClaimTemplate of the namespace" $own.gpu.claimTemplate }}
  {{- if semverCompare "<1.34.0-0" .Capabilities.KubeVersion.Version }}
    {{- fail (printf "sidedraft.gpu.mode shared needs Kubernetes 1.34, and this is %s" .Capabilities.KubeVersion.Version) }}
  {{- end }}
{{- end }}
{{- if and (or $own.tls.upstreamCA.existingSecret $own.tls.upstreamClientSecret) (not (hasPrefix "https://" $own.upstream)) }}
  {{- fail "sidedraft.tls.upstreamCA and upstreamClientSecret are about TLS, and sidedraft.upstream is not https" }}
{{- end }}
{{- if and (eq (toString $values.sidedraft.drafter) "neural") (not $values.sidedraft.draftModel.path) }}
  {{- fail "sidedraft.drafter neural needs sidedraft.draftModel.path" }}
{{- end }}
{{- if and $values.serviceMonitor.enabled $values.podMonitor.enabled }}
  {{- fail "serviceMonitor and podMonitor would scrape each pod twice: enable one of them" }}
{{- end }}
{{- end }}

{{/* Sidedraft's flags, as a YAML list. */}}
{{- define "sidedraft.args" -}}
{{- $own := .Values.sidedraft }}
{{- $upstream := $own.upstream }}
{{- if eq .Values.mode "sidecar" }}
{{- $upstream = printf "http://127.0.0.1:%d" (int .Values.vllm.port) }}
{{- end }}
{{- $args := list "serve" (printf "--listen=%s:%d" $own.address (int $own.port)) (printf "--upstream=%s" $upstream) }}
{{- if $own.draftModel.path }}
{{- $args = append $args (printf "--draft-model=%s" $own.draftModel.path) }}
{{- with $own.draftModel.precision }}{{ $args = append $args (printf "--draft-precision=%s" .) }}{{ end }}
{{- if ne $own.gpu.mode "none" }}{{ $args = append $args "--draft-device=auto" }}{{ end }}
{{- $args = append $args (printf "--draft-threads=%d" (int $own.draftModel.threads)) }}
{{- $args = append $args (printf "--draft-cache-mib=%d" (int $own.draftModel.cacheMiB)) }}
{{- end }}
{{- with $own.tokenizer }}{{ $args = append $args (printf "--tokenizer=%s" .) }}{{ end }}
{{- with $own.drafter }}{{ $args = append $args (printf "--drafter=%s" .) }}{{ end }}
{{- with $own.speculate }}{{ $args = append $args (printf "--speculate=%s" .) }}{{ end }}
{{- with $own.strategy }}{{ $args = append $args (printf "--strategy=%s" .) }}{{ end }}
{{- with $own.draftTokens }}{{ $args = append $args (printf "--draft-tokens=%d" (int .)) }}{{ end }}
{{- $args = append $args (printf "--drain-timeout=%v" $own.drainTimeoutSeconds) }}
{{- $args = append $args (printf "--log=%s" $own.log) }}
{{- $args = append $args (printf "--log-format=%s" $own.logFormat) }}
{{- with $own.otlpEndpoint }}{{ $args = append $args (printf "--otlp-endpoint=%s" .) }}{{ end }}
{{- if $own.tls.existingSecret }}
{{- $args = concat $args (list "--tls-cert=/etc/sidedraft/tls/tls.crt" "--tls-key=/etc/sidedraft/tls/tls.key") }}
{{- end }}
{{- if $own.tls.upstreamCA.existingSecret }}
{{- $args = append $args (printf "--upstream-ca=/etc/sidedraft/upstream-ca/%s" $own.tls.upstreamCA.key) }}
{{- end }}
{{- if $own.tls.upstreamClientSecret }}
{{- $args = concat $args (list "--upstream-cert=/etc/sidedraft/upstream-client/tls.crt" "--upstream-key=/etc/sidedraft/upstream-client/tls.key") }}
{{- end }}
{{- $set := list }}
{{- range $args }}{{ $set = append $set (splitList "=" . | first) }}{{ end }}
{{- range $own.extraArgs }}
{{- $flag := splitList "=" . | first }}
{{- if has $flag (list "--upstream-api-key" "--api-key") }}
{{- fail "a key among sidedraft.extraArgs could be read by everybody: use apiKey.existingSecret (vLLM's) or sidedraft.apiKey.existingSecret" }}
{{- end }}
{{- if has $flag $set }}
{{- fail (printf "sidedraft.extraArgs repeats %s, which the chart sets from the other values" $flag) }}
{{- end }}
{{- end }}
{{- concat $args $own.extraArgs | toYaml }}
{{- end }}

{{/* Sidedraft's container: a native sidecar, which starts before vLLM and ends after it, or the pod's only one. */}}
{{- define "sidedraft.container" -}}
{{- $own := .Values.sidedraft -}}
- name: sidedraft
  {{- if eq .Values.mode "sidecar" }}
  restartPolicy: Always
  {{- end }}
  image: {{ include "sidedraft.imageName" (dict "image" .Values.image "tag" .Chart.AppVersion) | quote }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  command: [sidedraft]
  args:
    {{- include "sidedraft.args" . | nindent 4 }}
  {{- $onGpu := ne $own.gpu.mode "none" }}
  {{- if or .Values.apiKey.existingSecret $own.apiKey.existingSecret $onGpu $own.extraEnv }}
  env:
    {{- if .Values.apiKey.existingSecret }}
    - name: SIDEDRAFT_UPSTREAM_API_KEY
      {{- include "sidedraft.fromSecret" .Values.apiKey | nindent 6 }}
    {{- end }}
    {{- if $own.apiKey.existingSecret }}
    - name: SIDEDRAFT_API_KEY
      {{- include "sidedraft.fromSecret" $own.apiKey | nindent 6 }}
    {{- end }}
    {{- if $onGpu }}
    # Compiled kernels, which a restart then finds
    - name: XDG_CACHE_HOME
      value: /var/cache/sidedraft
    {{- end }}
    {{- with $own.extraEnv }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- end }}
  ports:
    - name: http
      containerPort: {{ $own.port }}
      protocol: TCP
  startupProbe:
    {{- include "sidedraft.probe" (dict "probe" $own.startupProbe "tls" $own.tls) | nindent 4 }}
  livenessProbe:
    {{- include "sidedraft.probe" (dict "probe" $own.livenessProbe "tls" $own.tls) | nindent 4 }}
  readinessProbe:
    {{- include "sidedraft.probe" (dict "probe" $own.readinessProbe "tls" $own.tls) | nindent 4 }}
  {{- /* Time for the cluster to stop sending connections. Kubernetes 1.29 has no such hook by default. */}}
  {{- if and (eq .Values.mode "standalone") (semverCompare ">=1.30.0-0" .Capabilities.KubeVersion.Version) }}
  lifecycle:
    preStop:
      sleep:
        seconds: 5
  {{- end }}
  {{- $resources := deepCopy $own.resources }}
  {{- if eq $own.gpu.mode "own" }}
  {{- $resources = merge (dict "limits" (dict $own.gpu.resource (toString $own.gpu.count))) $resources }}
  {{- else if eq $own.gpu.mode "shared" }}
  {{- $resources = merge (dict "claims" (list (dict "name" "gpu"))) $resources }}
  {{- end }}
  {{- with $resources }}
  resources:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $own.securityContext }}
  securityContext:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- $secrets := include "sidedraft.secretMounts" . | fromYamlArray }}
  {{- if or .Values.models.volume $secrets $onGpu $own.extraVolumeMounts }}
  volumeMounts:
    {{- if .Values.models.volume }}
    - name: models
      mountPath: {{ .Values.models.mountPath }}
      readOnly: true
    {{- end }}
    {{- range $secrets }}
    - name: {{ .name }}
      mountPath: /etc/sidedraft/{{ .name }}
      readOnly: true
    {{- end }}
    {{- if $onGpu }}
    - name: kernels
      mountPath: /var/cache/sidedraft
    {{- end }}
    {{- with $own.extraVolumeMounts }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- end }}
{{- end }}

{{/* The value of a variable. Takes {existingSecret, key}. */}}
{{- define "sidedraft.fromSecret" -}}
valueFrom:
  secretKeyRef:
    name: {{ .existingSecret }}
    key: {{ .key }}
{{- end }}

{{/* A probe, over TLS where that is spoken. Takes {probe, tls}. */}}
{{- define "sidedraft.probe" -}}
{{- $probe := deepCopy .probe }}
{{- if and .tls.existingSecret $probe.httpGet }}
{{- $_ := set $probe.httpGet "scheme" "HTTPS" }}
{{- end }}
{{- toYaml $probe }}
{{- end }}

{{/* Volumes of secrets that Sidedraft reads, as a YAML list of {name, secret}. */}}
{{- define "sidedraft.secretMounts" -}}
{{- $tls := .Values.sidedraft.tls }}
{{- $mounts := list }}
{{- with $tls.existingSecret }}{{ $mounts = append $mounts (dict "name" "tls" "secret" .) }}{{ end }}
{{- with $tls.upstreamCA.existingSecret }}{{ $mounts = append $mounts (dict "name" "upstream-ca" "secret" .) }}{{ end }}
{{- with $tls.upstreamClientSecret }}{{ $mounts = append $mounts (dict "name" "upstream-client" "secret" .) }}{{ end }}
{{- toYaml $mounts }}
{{- end }}

{{- define "sidedraft.scheme" -}}
{{- ternary "https" "http" (ne .Values.sidedraft.tls.existingSecret "") }}
{{- end }}

{{/* What a monitor adds to the port of an endpoint. Takes the root, and an interval. */}}
{{- define "sidedraft.endpoint" -}}
- port: http
  path: /metrics
  interval: {{ .interval }}
  {{- with .root.Values.sidedraft.tls.existingSecret }}
  scheme: https
  tlsConfig:
    # Pods are asked by their addresses, which no certificate names
    insecureSkipVerify: true
  {{- end }}
  {{- with .root.Values.sidedraft.apiKey }}
  {{- if .existingSecret }}
  authorization:
    credentials:
      name: {{ .existingSecret }}
      key: {{ .key }}
  {{- end }}
  {{- end }}
{{- end }}

{{/* The vLLM of mode sidecar. */}}
{{- define "sidedraft.vllm" -}}
{{- $vllm := .Values.vllm -}}
- name: vllm
  image: {{ include "sidedraft.imageName" (dict "image" $vllm.image "tag" "") | quote }}
  imagePullPolicy: {{ $vllm.image.pullPolicy }}
  command: [vllm, serve]
  args:
    - {{ $vllm.model | quote }}
    - {{ printf "--port=%d" (int $vllm.port) }}
    {{- with $vllm.args }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- if or .Values.apiKey.existingSecret $vllm.extraEnv }}
  env:
    {{- if .Values.apiKey.existingSecret }}
    - name: VLLM_API_KEY
      {{- include "sidedraft.fromSecret" .Values.apiKey | nindent 6 }}
    {{- end }}
    {{- with $vllm.extraEnv }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- end }}
  ports:
    - name: vllm
      containerPort: {{ $vllm.port }}
      protocol: TCP
  startupProbe:
    {{- toYaml $vllm.startupProbe | nindent 4 }}
  livenessProbe:
    {{- toYaml $vllm.livenessProbe | nindent 4 }}
  readinessProbe:
    {{- toYaml $vllm.readinessProbe | nindent 4 }}
  {{- if $vllm.drainSeconds }}
  lifecycle:
    preStop:
      exec:
        command: [sleep, {{ $vllm.drainSeconds | quote }}]
  {{- end }}
  {{- $resources := deepCopy $vllm.resources }}
  {{- if eq .Values.sidedraft.gpu.mode "shared" }}
  {{- range $kind := list "limits" "requests" }}
  {{- if hasKey $resources $kind }}
  {{- $rest := omit (index $resources $kind) $.Values.sidedraft.gpu.resource }}
  {{- $resources = ternary (set $resources $kind $rest) (omit $resources $kind) (gt (len $rest) 0) }}
  {{- end }}
  {{- end }}
  {{- $resources = merge (dict "claims" (list (dict "name" "gpu"))) $resources }}
  {{- end }}
  {{- with $resources }}
  resources:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $vllm.securityContext }}
  securityContext:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  volumeMounts:
    - name: shm
      mountPath: /dev/shm
    {{- if .Values.models.volume }}
    - name: models
      mountPath: {{ .Values.models.mountPath }}
      readOnly: {{ .Values.models.readOnly }}
    {{- end }}
    {{- with $vllm.extraVolumeMounts }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end }}
