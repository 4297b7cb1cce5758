# Who reads and writes the buckets: S3 writes it here, and nobody else may.
resource "aws_s3_bucket" "logs" {
  # checkov:skip=CKV_AWS_18: this is where access logs go; logging its own accesses would never end
  # checkov:skip=CKV_AWS_145: S3's log delivery cannot write to a bucket whose default key is one's own
  # checkov:skip=CKV_AWS_144: logs need no copy in another region
  # checkov:skip=CKV2_AWS_62: nothing listens to events of logs
  bucket        = "${var.name}-logs-${local.account}-${local.region}"
  force_destroy = var.force_destroy
  tags          = var.tags
}

resource "aws_s3_bucket_public_access_block" "logs" {
  bucket = aws_s3_bucket.logs.id

  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_ownership_controls" "logs" {
  bucket = aws_s3_bucket.logs.id

  rule {
    object_ownership = "BucketOwnerEnforced"
  }
}

resource "aws_s3_bucket_versioning" "logs" {
  bucket = aws_s3_bucket.logs.id

  versioning_configuration {
    status = "Enabled"
  }
}

resource "aws_s3_bucket_server_side_encryption_configuration" "logs" {
  bucket = aws_s3_bucket.logs.id

  rule {
    apply_server_side_encryption_by_default {
      sse_algorithm = "AES256"
    }
  }
}

resource "aws_s3_bucket_lifecycle_configuration" "logs" {
  bucket = aws_s3_bucket.logs.id

  rule {
    id     = "old-logs"
    status = "Enabled"
    filter {}

    expiration {
      days = var.log_days
    }

    noncurrent_version_expiration {
      noncurrent_days = 1
    }

    abort_incomplete_multipart_upload {
      days_after_initiation = 1
    }
  }
}

resource "aws_s3_bucket_policy" "logs" {
  bucket = aws_s3_bucket.logs.id

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid       = "NothingUnencrypted"
        Effect    = "Deny"
        Action    = "s3:*"
        Resource  = [aws_s3_bucket.logs.arn, "${aws_s3_bucket.logs.arn}/*"]
        Principal = "*"
        Condition = { Bool = { "aws:SecureTransport" = "false" } }
      },
      {
        Sid       = "LogDelivery"
        Effect    = "Allow"
        Action    = "s3:PutObject"
        Resource  = ["${aws_s3_bucket.logs.arn}/*"]
        Principal = { Service = "logging.s3.amazonaws.com" }
        Condition = { StringEquals = { "aws:SourceAccount" = local.account } }
      },
    ]
  })

  depends_on = [aws_s3_bucket_public_access_block.logs]
}
