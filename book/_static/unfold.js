// The theme lets keys reach what scrolls, and looks for it when the window changes; here it looks again when something unfolds.
document.addEventListener("toggle", () => window.dispatchEvent(new Event("resize")), true);
