"""Networks: pure `nn.Module`s on PAN-grid tensors. They know no ratio, no DN and no files."""
