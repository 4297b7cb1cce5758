# Nothing here is secret, and nothing secret is in the state: Ray's token, Redis' and Grafana's passwords are made in the cluster.
output "region" {
  description = "The region of everything."
  value       = local.region
}

output "cluster_name" {
  description = "Name of the EKS cluster."
  value       = aws_eks_cluster.this.name
}

output "cluster_endpoint" {
  description = "Address of the Kubernetes API, for the helm provider."
  value       = aws_eks_cluster.this.endpoint
}

output "cluster_ca" {
  description = "Certificate that the Kubernetes API shows, in base64, for the helm provider."
  value       = aws_eks_cluster.this.certificate_authority[0].data
}

output "kubeconfig_command" {
  description = "Command that lets kubectl reach the cluster."
  value       = "aws eks update-kubeconfig --region ${local.region} --name ${aws_eks_cluster.this.name}"
}

output "image_repositories" {
  description = "Where to push what cluster/Dockerfile makes, by the name that the manifests use."
  value       = { for name, repository in aws_ecr_repository.this : name => repository.repository_url }
}

output "buckets" {
  description = "The buckets as URIs, by what lies in them."
  value       = { for name, bucket in aws_s3_bucket.this : name => "s3://${bucket.bucket}" }
}

output "kustomization" {
  description = "A kustomization.yaml for cluster/overlays/site: this cluster's images and buckets over the overlay that fits its groups."
  value = yamlencode({
    apiVersion = "kustomize.config.k8s.io/v1beta1"
    kind       = "Kustomization"
    resources  = ["../${local.overlay}"]
    images = [for name, repository in aws_ecr_repository.this :
      { name = name, newName = repository.repository_url, newTag = var.image_tag }
    ]
    configMapGenerator = [{
      name      = "rayseg-settings"
      namespace = local.namespace
      behavior  = "merge"
      literals  = [for name, bucket in aws_s3_bucket.this : "${upper(name)}_URI=s3://${bucket.bucket}"]
    }]
    generatorOptions = { disableNameSuffixHash = true }
  })
}

output "vpc_id" {
  description = "The VPC, for peering or a VPN."
  value       = aws_vpc.this.id
}

output "private_subnet_ids" {
  description = "Subnets of the nodes."
  value       = [for subnet in aws_subnet.private : subnet.id]
}

locals {
  has_gpus = anytrue([for group in local.groups : group.pool == "gpu"])
  has_spot = alltrue([contains(keys(local.groups), "cpu-spot"), contains(keys(local.groups), "gpu-spot")])
  overlay  = local.has_gpus ? (local.has_spot ? "spot" : "gpu") : "cpu"
}
