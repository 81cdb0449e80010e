// The theme lets keys reach what scrolls, and looks for it when the window changes; here it looks again when the page does, because something unfolds
// or a side bar goes.
document.addEventListener("DOMContentLoaded", () => {
  const looksAgain = new ResizeObserver(() => window.dispatchEvent(new Event("resize")));
  document.querySelectorAll("article.bd-article").forEach(article => looksAgain.observe(article));
});
