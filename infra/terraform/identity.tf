# Roles of pods, given by EKS Pod Identity to service accounts of this cluster alone.
locals {
  # Lists of (namespace, service account); those of add-ons are associated by the add-on itself.
  pods = {
    jobs = [
      { namespace = local.namespace, account = "rayseg-head" },
      { namespace = local.namespace, account = "rayseg-worker" },
    ]
    autoscaler = [{ namespace = "kube-system", account = "cluster-autoscaler" }]
    vpc-cni    = []
    ebs        = []
  }
  associations = merge([for role, pods in local.pods : { for pod in pods : "${role}:${pod.account}" => merge(pod, { role = role }) }]...)

  read_buckets  = concat([for name in ["images", "data"] : aws_s3_bucket.this[name].arn], var.image_bucket_arns)
  write_buckets = [for name in ["models", "labels"] : aws_s3_bucket.this[name].arn]
}

resource "aws_iam_role" "pod" {
  for_each = local.pods

  name = "${var.name}-pod-${each.key}"
  tags = var.tags

  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Action    = ["sts:AssumeRole", "sts:TagSession"]
      Principal = { Service = "pods.eks.amazonaws.com" }
      Condition = {
        StringEquals = { "aws:SourceAccount" = local.account }
        ArnEquals    = { "aws:SourceArn" = "arn:${local.partition}:eks:${local.region}:${local.account}:cluster/${var.name}" }
      }
    }]
  })
}

resource "aws_eks_pod_identity_association" "this" {
  for_each = local.associations

  cluster_name    = aws_eks_cluster.this.name
  namespace       = each.value.namespace
  service_account = each.value.account
  role_arn        = aws_iam_role.pod[each.value.role].arn
  tags            = var.tags
}

# Jobs read images and data, and write models and labels: a faulty job cannot harm what it reads.
resource "aws_iam_role_policy" "jobs" {
  name = "buckets"
  role = aws_iam_role.pod["jobs"].id

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid      = "List"
        Effect   = "Allow"
        Action   = ["s3:ListBucket", "s3:GetBucketLocation", "s3:ListBucketMultipartUploads"]
        Resource = concat(local.read_buckets, local.write_buckets)
      },
      {
        Sid      = "Read"
        Effect   = "Allow"
        Action   = ["s3:GetObject"]
        Resource = [for arn in concat(local.read_buckets, local.write_buckets) : "${arn}/*"]
      },
      {
        Sid      = "Write"
        Effect   = "Allow"
        Action   = ["s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"]
        Resource = [for arn in local.write_buckets : "${arn}/*"]
      },
      {
        Sid       = "Decrypt"
        Effect    = "Allow"
        Action    = ["kms:Decrypt", "kms:GenerateDataKey"]
        Resource  = [aws_kms_key.this.arn]
        Condition = { StringEquals = { "kms:ViaService" = "s3.${local.region}.amazonaws.com" } }
      },
    ]
  })
}

resource "aws_iam_role_policy" "autoscaler" {
  name = "scale-own-groups"
  role = aws_iam_role.pod["autoscaler"].id

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid    = "Look"
        Effect = "Allow"
        Action = [
          "autoscaling:DescribeAutoScalingGroups",
          "autoscaling:DescribeAutoScalingInstances",
          "autoscaling:DescribeLaunchConfigurations",
          "autoscaling:DescribeScalingActivities",
          "ec2:DescribeImages",
          "ec2:DescribeInstanceTypes",
          "ec2:DescribeLaunchTemplateVersions",
          "ec2:GetInstanceTypesFromInstanceRequirements",
        ]
        Resource = "*" # these know no resources
      },
      {
        Sid      = "LookAtGroups"
        Effect   = "Allow"
        Action   = ["eks:DescribeNodegroup"]
        Resource = "arn:${local.partition}:eks:${local.region}:${local.account}:nodegroup/${var.name}/*"
      },
      {
        Sid       = "ScaleOwnGroups"
        Effect    = "Allow"
        Action    = ["autoscaling:SetDesiredCapacity", "autoscaling:TerminateInstanceInAutoScalingGroup"]
        Resource  = "arn:${local.partition}:autoscaling:${local.region}:${local.account}:autoScalingGroup:*"
        Condition = { StringEquals = { "aws:ResourceTag/eks:cluster-name" = var.name } }
      },
    ]
  })
}

resource "aws_iam_role_policy_attachment" "pod" {
  for_each = {
    vpc-cni = "AmazonEKS_CNI_Policy"
    ebs     = "service-role/AmazonEBSCSIDriverPolicy"
  }

  role       = aws_iam_role.pod[each.key].name
  policy_arn = "arn:${local.partition}:iam::aws:policy/${each.value}"
}
