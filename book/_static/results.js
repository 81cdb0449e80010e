// Gives cells that begin with a number that number to be sorted by: "+0.20 [-0.19, +0.59]", "1,015", "12.5 %", "<0.001", "5.6e-09".
document.addEventListener("DOMContentLoaded", () => {
  for (const cell of document.querySelectorAll("table.bisam-results td")) {
    const found = cell.textContent.trim().match(/^<?[+\u2212-]?(\d[\d,]*(\.\d+)?|\.\d+)(e[+\u2212-]?\d+)?/);
    if (found) {
      cell.dataset.sort = found[0].startsWith("<") ? "0" : String(Number(found[0].replaceAll("\u2212", "-").replaceAll(",", "")));
    }
  }
});
