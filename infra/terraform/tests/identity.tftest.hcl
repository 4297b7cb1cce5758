# Least privilege: what each role may do, read out of its policy.
mock_provider "aws" {
  mock_data "aws_caller_identity" {
    defaults = { account_id = "123456789012", arn = "arn:aws:iam::123456789012:user/someone" }
  }
  mock_data "aws_iam_session_context" {
    defaults = { issuer_arn = "arn:aws:iam::123456789012:user/someone" }
  }
  mock_data "aws_partition" {
    defaults = { partition = "aws" }
  }
  mock_data "aws_region" {
    defaults = { region = "us-east-1" }
  }
  mock_resource "aws_eks_node_group" {
    defaults = { resources = [{ autoscaling_groups = [{ name = "eks-group" }], remote_access_security_group_id = "" }] }
  }
  mock_resource "aws_eks_cluster" {
    defaults = { certificate_authority = [{ data = "Y2E=" }] }
  }

  override_resource {
    target = aws_s3_bucket.this["images"]
    values = { arn = "arn:aws:s3:::own-images" }
  }
  override_resource {
    target = aws_s3_bucket.this["data"]
    values = { arn = "arn:aws:s3:::own-data" }
  }
  override_resource {
    target = aws_s3_bucket.this["models"]
    values = { arn = "arn:aws:s3:::own-models" }
  }
  override_resource {
    target = aws_s3_bucket.this["labels"]
    values = { arn = "arn:aws:s3:::own-labels" }
  }
}

mock_provider "helm" {}

variables {
  image_bucket_arns = ["arn:aws:s3:::their-images"]
}

run "least_privilege" {
  assert {
    condition = alltrue([
      for statement in jsondecode(aws_iam_role_policy.jobs.policy).Statement : statement.Sid != "Write" ||
      toset(statement.Resource) == toset(["arn:aws:s3:::own-models/*", "arn:aws:s3:::own-labels/*"])
    ])
    error_message = "Jobs may write models and labels, never images or data."
  }
  assert {
    condition = alltrue([
      for statement in jsondecode(aws_iam_role_policy.jobs.policy).Statement : statement.Sid != "Read" ||
      (contains(statement.Resource, "arn:aws:s3:::their-images/*") && contains(statement.Resource, "arn:aws:s3:::own-data/*") && statement.Action == ["s3:GetObject"])
    ])
    error_message = "Jobs must be able to read images that were there before, and only to read them."
  }
  assert {
    condition = alltrue(flatten([
      for statement in jsondecode(aws_iam_role_policy.jobs.policy).Statement : [
        for action in flatten([statement.Action]) : !strcontains(action, "*") && !contains(flatten([statement.Resource]), "*")
      ]
    ]))
    error_message = "No star for an action or for all resources."
  }

  assert {
    condition = alltrue([for role in aws_iam_role.pod : (
      jsondecode(role.assume_role_policy).Statement[0].Principal.Service == "pods.eks.amazonaws.com" &&
      jsondecode(role.assume_role_policy).Statement[0].Condition.ArnEquals["aws:SourceArn"] == "arn:aws:eks:us-east-1:123456789012:cluster/rayseg"
    )])
    error_message = "Pods of another cluster must not take these roles."
  }
  assert {
    condition     = toset([for one in aws_eks_pod_identity_association.this : "${one.namespace}/${one.service_account}"]) == toset(["rayseg/rayseg-head", "rayseg/rayseg-worker", "kube-system/cluster-autoscaler"])
    error_message = "Associations must name the service accounts of cluster/base."
  }

  assert {
    condition = alltrue([
      for statement in jsondecode(aws_iam_role_policy.autoscaler.policy).Statement : statement.Sid != "ScaleOwnGroups" ||
      try(statement.Condition.StringEquals["aws:ResourceTag/eks:cluster-name"], "") == "rayseg"
    ])
    error_message = "What changes groups must be bound to this cluster's."
  }

  assert {
    condition     = toset(keys(aws_iam_role_policy_attachment.node)) == toset(["AmazonEKSWorkerNodePolicy", "AmazonEC2ContainerRegistryPullOnly"])
    error_message = "Nodes need no more: pods have roles of their own."
  }
}
