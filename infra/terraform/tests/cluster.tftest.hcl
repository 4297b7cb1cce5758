# What the module makes by default, against mocked providers: private, encrypted, from none.
mock_provider "aws" {
  mock_data "aws_caller_identity" {
    defaults = { account_id = "123456789012", arn = "arn:aws:sts::123456789012:assumed-role/admin/someone" }
  }
  mock_data "aws_iam_session_context" {
    defaults = { issuer_arn = "arn:aws:iam::123456789012:role/admin" }
  }
  mock_data "aws_partition" {
    defaults = { partition = "aws" }
  }
  mock_data "aws_region" {
    defaults = { region = "eu-central-1" }
  }
  mock_resource "aws_eks_node_group" {
    defaults = { resources = [{ autoscaling_groups = [{ name = "eks-group" }], remote_access_security_group_id = "" }] }
  }
  mock_resource "aws_eks_cluster" {
    defaults = { certificate_authority = [{ data = "Y2E=" }] }
  }
}

mock_provider "helm" {}

run "by_default" {
  # Nothing is public.
  assert {
    condition     = aws_eks_cluster.this.vpc_config[0].endpoint_public_access == false && aws_eks_cluster.this.vpc_config[0].endpoint_private_access
    error_message = "The API must be reached from inside the VPC only."
  }
  assert {
    condition     = alltrue([for subnet in aws_subnet.public : !subnet.map_public_ip_on_launch])
    error_message = "No machine may get a public address by itself."
  }
  assert {
    condition = alltrue([for block in concat(values(aws_s3_bucket_public_access_block.this), [aws_s3_bucket_public_access_block.logs]) :
      block.block_public_acls && block.block_public_policy && block.ignore_public_acls && block.restrict_public_buckets
    ])
    error_message = "Every bucket must refuse public access in all four ways."
  }
  assert {
    condition     = toset(keys(aws_s3_bucket_public_access_block.this)) == toset(["images", "data", "models", "labels"])
    error_message = "Every bucket needs a public access block."
  }
  assert {
    condition     = length(aws_default_security_group.this.ingress) == 0 && length(aws_default_security_group.this.egress) == 0
    error_message = "The default security group must be closed."
  }

  # All is encrypted.
  assert {
    condition     = tolist(aws_eks_cluster.this.encryption_config[0].resources) == tolist(["secrets"]) && aws_kms_key.this.enable_key_rotation
    error_message = "Kubernetes' secrets must be encrypted, with a key that rotates."
  }
  assert {
    condition = alltrue([for bucket in aws_s3_bucket_server_side_encryption_configuration.this :
      one(bucket.rule).bucket_key_enabled && one(one(bucket.rule).apply_server_side_encryption_by_default).sse_algorithm == "aws:kms"
    ])
    error_message = "Buckets must be encrypted with the key, and with a bucket key."
  }
  assert {
    condition     = alltrue([for log in [aws_cloudwatch_log_group.cluster, aws_cloudwatch_log_group.flow] : log.kms_key_id == aws_kms_key.this.arn && log.retention_in_days == 365])
    error_message = "Logs must be encrypted with the key and end."
  }
  assert {
    condition     = alltrue([for template in aws_launch_template.node : one(template.block_device_mappings[*].ebs[0].encrypted) == "true"])
    error_message = "Nodes' disks must be encrypted."
  }
  assert {
    condition     = alltrue([for repository in aws_ecr_repository.this : repository.image_tag_mutability == "IMMUTABLE" && repository.encryption_configuration[0].encryption_type == "KMS"])
    error_message = "Container images must be encrypted, and their tags fixed."
  }
  assert {
    condition = alltrue([for name, policy in aws_s3_bucket_policy.this : anytrue([
      for statement in jsondecode(policy.policy).Statement : statement.Effect == "Deny" && try(statement.Condition.Bool["aws:SecureTransport"], "") == "false"
    ])])
    error_message = "Buckets must refuse requests that are not encrypted."
  }

  # Workers start from none, and are tainted.
  assert {
    condition     = toset(keys(aws_eks_node_group.workers)) == toset(["cpu", "cpu-spot", "gpu", "gpu-spot"])
    error_message = "There must be CPU and GPU groups, on demand and spot."
  }
  assert {
    condition     = alltrue([for group in aws_eks_node_group.workers : group.scaling_config[0].min_size == 0 && group.scaling_config[0].desired_size == 0])
    error_message = "Workers must start from none."
  }
  assert {
    condition     = [for name in ["cpu", "cpu-spot", "gpu", "gpu-spot"] : aws_eks_node_group.workers[name].capacity_type] == ["ON_DEMAND", "SPOT", "ON_DEMAND", "SPOT"]
    error_message = "The spot groups must be spot, and the others not."
  }
  assert {
    condition = (
      { for taint in aws_eks_node_group.workers["gpu-spot"].taint : taint.key => taint.value } == { "nvidia.com/gpu" = "true", "rayseg/capacity" = "spot" } &&
      { for taint in aws_eks_node_group.workers["cpu"].taint : taint.key => taint.value } == { "rayseg/pool" = "cpu" }
    )
    error_message = "Taints must be those that cluster/ tolerates."
  }
  assert {
    condition     = aws_eks_node_group.workers["gpu"].ami_type == "AL2023_x86_64_NVIDIA" && aws_eks_node_group.workers["cpu"].ami_type == "AL2023_x86_64_STANDARD"
    error_message = "GPU nodes need the image with NVIDIA's driver."
  }
  assert {
    condition     = aws_autoscaling_group_tag.hint["gpu:resources/nvidia.com/gpu"].tag[0].key == "k8s.io/cluster-autoscaler/node-template/resources/nvidia.com/gpu"
    error_message = "An empty GPU group must tell the node autoscaler that its nodes have a GPU."
  }
  assert {
    condition     = alltrue([for template in aws_launch_template.node : template.metadata_options[0].http_tokens == "required" && template.metadata_options[0].http_put_response_hop_limit == 1])
    error_message = "Pods must not reach their node's credentials."
  }
}

run "as_chosen" {
  variables {
    zones            = ["a", "b"]
    nat_per_zone     = true
    public_api_cidrs = ["203.0.113.7/32"]
    admin_arns       = ["arn:aws:iam::123456789012:role/team"]
    gpu              = { max_on_demand = 0, max_spot = 0 }
  }

  assert {
    condition     = aws_eks_cluster.this.vpc_config[0].endpoint_public_access && aws_eks_cluster.this.vpc_config[0].public_access_cidrs == toset(["203.0.113.7/32"])
    error_message = "The API must be open to the named range and to no other."
  }

  assert {
    condition     = aws_eks_cluster.this.access_config[0].authentication_mode == "API" && !aws_eks_cluster.this.access_config[0].bootstrap_cluster_creator_admin_permissions
    error_message = "Only access entries may give access."
  }
  assert {
    condition     = toset(keys(aws_eks_access_entry.admin)) == toset(["arn:aws:iam::123456789012:role/admin", "arn:aws:iam::123456789012:role/team"])
    error_message = "Administrators are the one who applies, by role rather than session, and those named."
  }

  assert {
    condition     = toset(keys(aws_eks_node_group.workers)) == toset(["cpu", "cpu-spot"]) && length(helm_release.gpus) == 0
    error_message = "No GPU group and no device plugin without GPUs."
  }

  assert {
    condition     = toset(keys(aws_nat_gateway.this)) == toset(["eu-central-1a", "eu-central-1b"])
    error_message = "nat_per_zone must make a gateway in each zone."
  }
  assert {
    condition     = aws_subnet.private["eu-central-1b"].cidr_block == "10.0.64.0/18" && aws_subnet.public["eu-central-1b"].cidr_block == "10.0.196.0/22"
    error_message = "Subnets must not overlap: quarters for nodes, the last one for gateways."
  }
}
