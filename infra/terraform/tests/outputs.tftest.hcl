# What the manifests are fed with.
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
  mock_resource "aws_ecr_repository" {
    defaults = { repository_url = "123456789012.dkr.ecr.us-east-1.amazonaws.com/rayseg/image" }
  }
}

mock_provider "helm" {}

run "the_kustomization_names_images_and_buckets" {
  variables {
    image_tag = "1.2.3"
  }

  assert {
    condition     = yamldecode(output.kustomization).resources == ["../spot"]
    error_message = "With GPUs and spot nodes the overlay is spot."
  }
  assert {
    condition     = { for image in yamldecode(output.kustomization).images : image.name => image.newTag } == { rayseg-cpu = "1.2.3", rayseg-cuda = "1.2.3" }
    error_message = "Both images must be named as the manifests name them, with the tag."
  }
  assert {
    condition     = toset(yamldecode(output.kustomization).configMapGenerator[0].literals) == toset([for name in ["images", "data", "models", "labels"] : "${upper(name)}_URI=s3://rayseg-${name}-123456789012-us-east-1"])
    error_message = "The jobs' settings must name all four buckets."
  }
  assert {
    condition     = output.kubeconfig_command == "aws eks update-kubeconfig --region us-east-1 --name rayseg"
    error_message = "The command must name the region and the cluster."
  }
}

run "without_spot_nodes_the_overlay_is_gpu" {
  variables {
    cpu = { max_spot = 0 }
    gpu = { max_spot = 0 }
  }

  assert {
    condition     = yamldecode(output.kustomization).resources == ["../gpu"]
    error_message = "The overlay must not ask for groups that are not there."
  }
}

run "without_gpus_the_overlay_is_cpu" {
  variables {
    gpu = { max_on_demand = 0, max_spot = 0 }
  }

  assert {
    condition     = yamldecode(output.kustomization).resources == ["../cpu"]
    error_message = "The overlay must not ask for GPUs where there are none."
  }
}
