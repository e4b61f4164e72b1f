one
two
error: snapshot 's3' not found
  --> case.lua:10:5
    |
 10 | box:restore("s3")
    |     ^^^^^^^
