// The parts of a page that change by themselves: the server sends the id of an element and its content, whole, whenever it differs.
// A hidden tab asks for nothing.
(() => {
  let source = null;
  const begin = () => {
    source = new EventSource("/live");
    source.addEventListener("part", (event) => {
      const end = event.data.indexOf("\n");
      const element = document.getElementById(event.data.slice(0, end));
      if (element && !element.contains(document.activeElement)) {
        element.innerHTML = event.data.slice(end + 1);
      }
    });
  };
  const end = () => {
    if (source) source.close();
    source = null;
  };
  document.addEventListener("visibilitychange", () => (document.hidden ? end() : source || begin()));
  if (!document.hidden) begin();
})();
