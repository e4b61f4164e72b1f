local report = gc({ dry_run = true })
print(report.sandboxes)
print(report.leftovers)
gc()
