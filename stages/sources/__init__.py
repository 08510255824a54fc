"""Where images lie: folders, buckets, tar and Parquet files. Which there are, and their bytes; not their pixels."""
