# Values that cannot be right are refused before anything is made, each by its own variable. A run takes seconds, so that each
# holds one fault for many variables; a fault that is not refused fails it.
mock_provider "aws" {
  mock_data "aws_partition" {
    defaults = { partition = "aws" }
  }
  mock_data "aws_region" {
    defaults = { region = "us-east-1" }
  }
}

mock_provider "helm" {}

run "refused" {
  command = plan

  variables {
    name               = "Ray_Seg"
    kubernetes_version = "1.27"
    vpc_cidr           = "8.8.0.0/16"
    zones              = ["a"]
    public_api_cidrs   = ["0.0.0.0/0"]
    admin_arns         = ["arn:aws:sts::123456789012:assumed-role/admin/me"] # a session
    system             = { nodes = 0 }
    cpu                = { max_spot = -1 }
    gpu                = { instance_types = ["c7i.2xlarge"] }
    disk_gb            = 20
    image_bucket_arns  = ["arn:aws:s3:::my-images/2026/*"]
    old_version_days   = 0
    log_days           = 100
    kept_images        = 1
    image_tag          = "latest"
  }

  expect_failures = [
    var.name,
    var.kubernetes_version,
    var.vpc_cidr,
    var.zones,
    var.public_api_cidrs,
    var.admin_arns,
    var.system,
    var.cpu,
    var.gpu,
    var.disk_gb,
    var.image_bucket_arns,
    var.old_version_days,
    var.log_days,
    var.kept_images,
    var.image_tag,
  ]
}

run "refused_too" {
  command = plan

  variables {
    name             = "-x"
    vpc_cidr         = "10.0.0.0/24"
    zones            = ["a", "a"]
    public_api_cidrs = ["0.0.0.0/1"] # half of the internet
    system           = { nodes = 3, max_nodes = 2 }
    cpu              = { instance_types = [] }
    gpu              = { instance_types = ["g4ad.xlarge"] } # GPUs of AMD
    image_tag        = "a tag"
  }

  expect_failures = [
    var.name,
    var.vpc_cidr,
    var.zones,
    var.public_api_cidrs,
    var.system,
    var.cpu,
    var.gpu,
    var.image_tag,
  ]
}

run "and_refused" {
  command = plan

  variables {
    public_api_cidrs = ["office"]
    gpu              = { max_on_demand = 451 }
    vpc_cidr         = "10.0.0.0"
  }

  expect_failures = [
    var.public_api_cidrs,
    var.gpu,
    var.vpc_cidr,
  ]
}
