# Groups of nodes: `system` is always there; the others start from none, are tainted so that only what asks for them comes, and
# carry the labels that cluster/base and its overlays select by.
locals {
  groups = {
    for name, group in {
      cpu      = { pool = "cpu", spot = false, max = var.cpu.max_on_demand, types = var.cpu.instance_types }
      cpu-spot = { pool = "cpu", spot = true, max = var.cpu.max_spot, types = var.cpu.instance_types }
      gpu      = { pool = "gpu", spot = false, max = var.gpu.max_on_demand, types = var.gpu.instance_types }
      gpu-spot = { pool = "gpu", spot = true, max = var.gpu.max_spot, types = var.gpu.instance_types }
    } : name => group if group.max > 0
  }

  pool_taint = {
    cpu = { key = "rayseg/pool", value = "cpu" }
    gpu = { key = "nvidia.com/gpu", value = "true" }
  }
  spot_taint = { key = "rayseg/capacity", value = "spot" }
  taints     = { for name, group in local.groups : name => concat([local.pool_taint[group.pool]], group.spot ? [local.spot_taint] : []) }
  labels = { for name, group in local.groups : name => merge(
    { "rayseg/pool" = group.pool, "rayseg/capacity" = group.spot ? "spot" : "on-demand" },
    group.pool == "gpu" ? { "nvidia.com/gpu.present" = "true" } : {}, # the device plugin goes where this is
  ) }

  # The node autoscaler reads of an empty group what a node of it would be from tags of its scaling group.
  hints = merge([for name, group in local.groups : merge(
    { for key, value in local.labels[name] : "${name}:label/${key}" => { group = name, key = "label/${key}", value = value } },
    { for taint in local.taints[name] : "${name}:taint/${taint.key}" => { group = name, key = "taint/${taint.key}", value = "${taint.value}:NoSchedule" } },
    group.pool == "gpu" ? { "${name}:resources/nvidia.com/gpu" = { group = name, key = "resources/nvidia.com/gpu", value = "1" } } : {},
  )]...)
}

resource "aws_launch_template" "node" {
  for_each = toset(concat(["system"], keys(local.groups)))

  name_prefix            = "${var.name}-${each.key}-"
  update_default_version = true
  tags                   = var.tags

  # Pods cannot reach the node's own credentials: a token, and one hop.
  metadata_options {
    http_tokens                 = "required"
    http_endpoint               = "enabled"
    http_put_response_hop_limit = 1
  }

  block_device_mappings {
    device_name = "/dev/xvda"

    ebs {
      volume_size           = each.key == "system" ? 50 : var.disk_gb
      volume_type           = "gp3"
      encrypted             = true
      delete_on_termination = true
    }
  }

  tag_specifications {
    resource_type = "instance"
    tags          = merge(var.tags, { Name = "${var.name}-${each.key}" })
  }

  tag_specifications {
    resource_type = "volume"
    tags          = merge(var.tags, { Name = "${var.name}-${each.key}" })
  }
}

resource "aws_eks_node_group" "system" {
  cluster_name    = aws_eks_cluster.this.name
  node_group_name = "system"
  node_role_arn   = aws_iam_role.node.arn
  subnet_ids      = [for subnet in aws_subnet.private : subnet.id]
  ami_type        = "AL2023_x86_64_STANDARD"
  instance_types  = var.system.instance_types
  labels          = { "rayseg/pool" = "system" }
  tags            = var.tags

  launch_template {
    id      = aws_launch_template.node["system"].id
    version = aws_launch_template.node["system"].latest_version
  }

  scaling_config {
    min_size     = var.system.nodes
    desired_size = var.system.nodes
    max_size     = var.system.max_nodes
  }

  update_config {
    max_unavailable = 1
  }

  lifecycle {
    ignore_changes = [scaling_config[0].desired_size]
  }

  depends_on = [aws_eks_addon.before_nodes, aws_eks_addon.vpc_cni, aws_iam_role_policy_attachment.node]
}

resource "aws_eks_node_group" "workers" {
  for_each = local.groups

  cluster_name    = aws_eks_cluster.this.name
  node_group_name = each.key
  node_role_arn   = aws_iam_role.node.arn
  subnet_ids      = [for subnet in aws_subnet.private : subnet.id]
  ami_type        = each.value.pool == "gpu" ? "AL2023_x86_64_NVIDIA" : "AL2023_x86_64_STANDARD"
  capacity_type   = each.value.spot ? "SPOT" : "ON_DEMAND"
  instance_types  = each.value.types
  labels          = local.labels[each.key]
  tags            = var.tags

  launch_template {
    id      = aws_launch_template.node[each.key].id
    version = aws_launch_template.node[each.key].latest_version
  }

  scaling_config {
    min_size     = 0
    desired_size = 0
    max_size     = each.value.max
  }

  dynamic "taint" {
    for_each = local.taints[each.key]

    content {
      key    = taint.value.key
      value  = taint.value.value
      effect = "NO_SCHEDULE"
    }
  }

  update_config {
    max_unavailable = 1
  }

  lifecycle {
    ignore_changes = [scaling_config[0].desired_size]
  }

  depends_on = [aws_eks_addon.before_nodes, aws_eks_addon.vpc_cni, aws_iam_role_policy_attachment.node]
}

resource "aws_autoscaling_group_tag" "hint" {
  for_each = local.hints

  autoscaling_group_name = aws_eks_node_group.workers[each.value.group].resources[0].autoscaling_groups[0].name

  tag {
    key                 = "k8s.io/cluster-autoscaler/node-template/${each.value.key}"
    value               = each.value.value
    propagate_at_launch = false
  }
}

resource "aws_iam_role" "node" {
  name = "${var.name}-node"
  tags = var.tags

  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Action    = "sts:AssumeRole"
      Principal = { Service = "ec2.amazonaws.com" }
    }]
  })
}

# A node may join and pull images, no more: pods have roles of their own.
resource "aws_iam_role_policy_attachment" "node" {
  for_each = toset(["AmazonEKSWorkerNodePolicy", "AmazonEC2ContainerRegistryPullOnly"])

  role       = aws_iam_role.node.name
  policy_arn = "arn:${local.partition}:iam::aws:policy/${each.value}"
}
