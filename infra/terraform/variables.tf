variable "name" {
  description = "Name of the cluster, and the start of the name of everything else."
  type        = string
  default     = "rayseg"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,18}[a-z0-9]$", var.name))
    error_message = "name: 3 to 20 lower-case letters, digits and dashes, starting with a letter; bucket names are made of it."
  }
}

variable "kubernetes_version" {
  description = "Minor version of Kubernetes, one that EKS supports."
  type        = string
  default     = "1.35"

  validation {
    condition     = can(regex("^1\\.(3[3-9]|4[0-9])$", var.kubernetes_version))
    error_message = "kubernetes_version: a minor version from 1.33 on, such as 1.35."
  }
}

variable "vpc_cidr" {
  description = "Private address range of the VPC, /16 to /20. Every pod takes an address."
  type        = string
  default     = "10.0.0.0/16"

  validation {
    condition     = can(cidrnetmask(var.vpc_cidr)) && can(regex("/(1[6-9]|20)$", var.vpc_cidr))
    error_message = "vpc_cidr: an IPv4 range from /16 to /20, such as 10.0.0.0/16."
  }
  validation {
    condition     = can(regex("^(10\\.|172\\.(1[6-9]|2[0-9]|3[01])\\.|192\\.168\\.)", var.vpc_cidr))
    error_message = "vpc_cidr: a private range, in 10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16."
  }
}

variable "zones" {
  description = "Letters of the region's availability zones to spread over. EKS needs two; three find GPUs more often."
  type        = list(string)
  default     = ["a", "b", "c"]

  validation {
    condition     = contains([2, 3], length(var.zones)) && alltrue([for letter in var.zones : can(regex("^[a-f]$", letter))])
    error_message = "zones: 2 or 3 letters of zones, such as [\"a\", \"b\"]."
  }
  validation {
    condition     = length(distinct(var.zones)) == length(var.zones)
    error_message = "zones: each letter once."
  }
}

variable "nat_per_zone" {
  description = "A NAT gateway for each zone, which outlives a zone; otherwise one for all, at a third of the price."
  type        = bool
  default     = false
}

variable "public_api_cidrs" {
  description = "Ranges that reach the Kubernetes API from outside the VPC. None: it is reached from inside only."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for cidr in var.public_api_cidrs : can(cidrnetmask(cidr))])
    error_message = "public_api_cidrs: IPv4 ranges, such as 203.0.113.7/32."
  }
  validation {
    condition     = alltrue([for cidr in var.public_api_cidrs : try(tonumber(split("/", cidr)[1]) >= 16, false)])
    error_message = "public_api_cidrs: no range wider than /16; name the offices and VPNs that need it, not the internet."
  }
}

variable "admin_arns" {
  description = "IAM roles and users who administer the cluster, beside the one who applies this."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for arn in var.admin_arns : can(regex("^arn:[a-z-]+:iam::[0-9]{12}:(role|user)/.+$", arn))])
    error_message = "admin_arns: ARNs of IAM roles or users, such as arn:aws:iam::123456789012:role/admin; not of sessions (sts)."
  }
}

variable "system" {
  description = "Nodes that are always there: heads, operators, monitoring."
  type = object({
    instance_types = optional(list(string), ["m7i.xlarge"])
    nodes          = optional(number, 2)
    max_nodes      = optional(number, 4)
  })
  default = {}

  validation {
    condition     = length(var.system.instance_types) > 0
    error_message = "system.instance_types: at least one."
  }
  validation {
    condition     = var.system.nodes >= 1 && var.system.max_nodes >= var.system.nodes
    error_message = "system: nodes from 1 on, and max_nodes no fewer than nodes."
  }
}

variable "cpu" {
  description = "CPU nodes, from none to so many. Types of 8 cores and 16 GB or more, as cluster/base asks for; all of one size."
  type = object({
    instance_types = optional(list(string), ["c7i.2xlarge", "c7a.2xlarge", "c6i.2xlarge", "m7i.2xlarge"])
    max_on_demand  = optional(number, 20)
    max_spot       = optional(number, 40)
  })
  default = {}

  validation {
    condition     = length(var.cpu.instance_types) > 0 && alltrue([for type in var.cpu.instance_types : can(regex("^[a-z0-9-]+\\.[a-z0-9]+$", type))])
    error_message = "cpu.instance_types: at least one EC2 instance type, such as c7i.2xlarge."
  }
  validation {
    condition     = min(var.cpu.max_on_demand, var.cpu.max_spot) >= 0 && max(var.cpu.max_on_demand, var.cpu.max_spot) <= 450
    error_message = "cpu: max_on_demand and max_spot from 0 to 450, the most nodes of a managed group."
  }
}

variable "gpu" {
  description = "GPU nodes, from none to so many; 0 and 0 leave the groups out. Types of one NVIDIA GPU and 4 cores or more."
  type = object({
    instance_types = optional(list(string), ["g6.xlarge", "g5.xlarge"])
    max_on_demand  = optional(number, 8)
    max_spot       = optional(number, 16)
  })
  default = {}

  validation {
    condition     = length(var.gpu.instance_types) > 0 && alltrue([for type in var.gpu.instance_types : can(regex("^(g[4-9][a-z]*|p[3-9][a-z]*|gr6[a-z]*)\\.[a-z0-9-]+$", type))])
    error_message = "gpu.instance_types: EC2 types with NVIDIA GPUs (g4dn, g5, g6, g6e, p4d, p5 ...), such as g6.xlarge."
  }
  validation {
    condition     = alltrue([for type in var.gpu.instance_types : !can(regex("^g5g|^g4ad", type))])
    error_message = "gpu.instance_types: g4ad has AMD GPUs and g5g has ARM cores; neither runs the image."
  }
  validation {
    condition     = min(var.gpu.max_on_demand, var.gpu.max_spot) >= 0 && max(var.gpu.max_on_demand, var.gpu.max_spot) <= 450
    error_message = "gpu: max_on_demand and max_spot from 0 to 450, the most nodes of a managed group."
  }
}

variable "disk_gb" {
  description = "Disk of each worker node: images of the containers, checkpoints, Ray's spilled objects."
  type        = number
  default     = 100

  validation {
    condition     = var.disk_gb >= 50 && var.disk_gb <= 16384
    error_message = "disk_gb: 50 to 16384; the CUDA image alone takes about 8."
  }
}

variable "image_bucket_arns" {
  description = "Buckets with images that exist already, which jobs may read. The module makes one for images of its own as well."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for arn in var.image_bucket_arns : can(regex("^arn:[a-z-]+:s3:::[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$", arn))])
    error_message = "image_bucket_arns: ARNs of whole buckets, such as arn:aws:s3:::my-images, without a path or a star."
  }
}

variable "old_version_days" {
  description = "Days that overwritten and deleted objects are kept."
  type        = number
  default     = 30

  validation {
    condition     = var.old_version_days >= 1
    error_message = "old_version_days: 1 or more."
  }
}

variable "log_days" {
  description = "Days that logs of the control plane, the network and the buckets are kept."
  type        = number
  default     = 365

  validation {
    condition     = contains([30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827], var.log_days)
    error_message = "log_days: a retention that CloudWatch knows: 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096 or 1827."
  }
}

variable "kept_images" {
  description = "Container images kept in each repository, the newest."
  type        = number
  default     = 20

  validation {
    condition     = var.kept_images >= 2
    error_message = "kept_images: 2 or more, so that the last one can be gone back to."
  }
}

variable "image_tag" {
  description = "Tag of the container images that the output `kustomization` names."
  type        = string
  default     = "0.1.0"

  validation {
    condition     = can(regex("^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$", var.image_tag)) && var.image_tag != "latest"
    error_message = "image_tag: a tag of letters, digits, dots, dashes and underscores that is not latest: tags here never change."
  }
}

variable "monitoring" {
  description = "Install Prometheus and Grafana."
  type        = bool
  default     = true
}

variable "force_destroy" {
  description = "Let `terraform destroy` delete buckets and repositories with what is in them."
  type        = bool
  default     = false
}

variable "tags" {
  description = "Tags of everything."
  type        = map(string)
  default     = {}
}
