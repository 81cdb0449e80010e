// Gives cells that begin with a number that number to be sorted by: "+0.20 [-0.19, +0.59]", "1,015", "12.5%".
document.addEventListener("DOMContentLoaded", () => {
  for (const cell of document.querySelectorAll("table.bisam-results td")) {
    const found = cell.textContent.trim().match(/^[+\u2212-]?(\d[\d,]*(\.\d+)?|\.\d+)/);
    if (found) {
      cell.dataset.sort = found[0].replace("\u2212", "-").replace("+", "").replaceAll(",", "");
    }
  }
});
