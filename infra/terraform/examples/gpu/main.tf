# GPUs on spot nodes with on-demand ones behind them, three zones, a NAT gateway in each.
terraform {
  required_version = ">= 1.10"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "~> 6.0"
    }
    helm = {
      source  = "hashicorp/helm"
      version = "~> 3.0"
    }
  }
}

variable "region" {
  description = "Where everything is made."
  type        = string
  default     = "us-east-1"
}

variable "public_api_cidrs" {
  description = "From where you reach the cluster: [\"YOUR.ADDRESS/32\"]. None: from inside its VPC only."
  type        = list(string)
  default     = []
}

variable "image_bucket_arns" {
  description = "Buckets with your images, which jobs may read."
  type        = list(string)
  default     = []
}

variable "force_destroy" {
  description = "Whether `terraform destroy` also deletes what lies in the buckets."
  type        = bool
  default     = false
}

provider "aws" {
  region = var.region

  default_tags {
    tags = { project = "rayseg" }
  }
}

# A token for each command, from the AWS CLI: no credentials of the cluster come into the state.
provider "helm" {
  kubernetes = {
    host                   = module.rayseg.cluster_endpoint
    cluster_ca_certificate = base64decode(module.rayseg.cluster_ca)
    exec = {
      api_version = "client.authentication.k8s.io/v1"
      command     = "aws"
      args        = ["eks", "get-token", "--region", var.region, "--cluster-name", module.rayseg.cluster_name]
    }
  }
}

module "rayseg" {
  source = "../.."

  zones             = ["a", "b", "c"]
  nat_per_zone      = true
  public_api_cidrs  = var.public_api_cidrs
  image_bucket_arns = var.image_bucket_arns
  force_destroy     = var.force_destroy
  system            = { nodes = 2, max_nodes = 6 }
  cpu               = { max_on_demand = 20, max_spot = 40 }
  gpu = {
    instance_types = ["g6.xlarge", "g5.xlarge"]
    max_on_demand  = 8
    max_spot       = 16
  }
}

output "kubeconfig_command" {
  description = "Lets kubectl reach the cluster."
  value       = module.rayseg.kubeconfig_command
}

output "image_repositories" {
  description = "Where to push the container images."
  value       = module.rayseg.image_repositories
}

output "buckets" {
  description = "Where things lie."
  value       = module.rayseg.buckets
}

output "kustomization" {
  description = "For cluster/overlays/site/kustomization.yaml."
  value       = module.rayseg.kustomization
}
