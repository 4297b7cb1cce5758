# What runs in the cluster before rayseg does. Versions are pinned together: KubeRay's is the one that the manifests are checked with.
locals {
  on_system = { nodeSelector = { "rayseg/pool" = "system" } }
}

resource "helm_release" "kuberay" {
  name             = "kuberay-operator"
  repository       = "https://ray-project.github.io/kuberay-helm/"
  chart            = "kuberay-operator"
  version          = "1.7.0"
  namespace        = "kuberay-system" # cluster/base lets this namespace reach heads
  create_namespace = true
  atomic           = true

  values = [yamlencode(merge(local.on_system, {
    resources = { requests = { cpu = "100m", memory = "512Mi" }, limits = { cpu = "1", memory = "512Mi" } }
  }))]

  depends_on = [aws_eks_addon.coredns, aws_eks_access_policy_association.admin]
}

resource "helm_release" "autoscaler" {
  name       = "cluster-autoscaler"
  repository = "https://kubernetes.github.io/autoscaler"
  chart      = "cluster-autoscaler"
  version    = "9.59.0"
  namespace  = "kube-system"
  atomic     = true

  values = [yamlencode(merge(local.on_system, {
    awsRegion     = local.region
    autoDiscovery = { clusterName = aws_eks_cluster.this.name }
    rbac          = { serviceAccount = { name = "cluster-autoscaler" } }
    # Nodes of a Ray cluster come and go in bursts: add them quickly, remove them once they have been empty for a while.
    extraArgs = { expander = "least-waste", scale-down-unneeded-time = "5m", skip-nodes-with-system-pods = false }
    resources = { requests = { cpu = "100m", memory = "300Mi" }, limits = { memory = "600Mi" } }
  }))]

  depends_on = [aws_eks_addon.coredns, aws_eks_access_policy_association.admin, aws_eks_pod_identity_association.this]
}

resource "helm_release" "gpus" {
  count = anytrue([for group in local.groups : group.pool == "gpu"]) ? 1 : 0

  name             = "nvidia-device-plugin"
  repository       = "https://nvidia.github.io/k8s-device-plugin"
  chart            = "nvidia-device-plugin"
  version          = "0.20.0"
  namespace        = "nvidia-device-plugin"
  create_namespace = true
  atomic           = true

  # Its own default tolerates nvidia.com/gpu alone; spot nodes carry a second taint.
  values = [yamlencode({
    tolerations = [
      { key = "nvidia.com/gpu", operator = "Exists", effect = "NoSchedule" },
      { key = "rayseg/capacity", operator = "Exists", effect = "NoSchedule" },
    ]
  })]

  depends_on = [aws_eks_addon.coredns, aws_eks_access_policy_association.admin]
}

resource "helm_release" "monitoring" {
  count = var.monitoring ? 1 : 0

  name             = "monitoring"
  repository       = "https://prometheus-community.github.io/helm-charts"
  chart            = "kube-prometheus-stack"
  version          = "88.5.3"
  namespace        = "monitoring" # cluster/base lets this namespace reach the pods' metrics
  create_namespace = true
  atomic           = true
  timeout          = 900

  # Grafana's password is made by the chart, in a secret of the cluster; it is never known here.
  values = [yamlencode({
    prometheus = { prometheusSpec = merge(local.on_system, {
      podMonitorSelectorNilUsesHelmValues   = false # those of every namespace, without a label
      scrapeConfigSelectorNilUsesHelmValues = false
      retention                             = "15d"
      storageSpec = { volumeClaimTemplate = { spec = {
        accessModes = ["ReadWriteOnce"]
        resources   = { requests = { storage = "50Gi" } }
      } } }
    }) }
    alertmanager       = { alertmanagerSpec = local.on_system }
    prometheusOperator = local.on_system
    kube-state-metrics = local.on_system
    grafana            = merge(local.on_system, { sidecar = { dashboards = { searchNamespace = "ALL" } } })
    # EKS runs these itself and shows nobody their metrics.
    kubeControllerManager = { enabled = false }
    kubeScheduler         = { enabled = false }
    kubeEtcd              = { enabled = false }
  })]

  depends_on = [aws_eks_addon.coredns, aws_eks_addon.ebs, aws_eks_access_policy_association.admin]
}
