"""A click on the head of a column of results sorts it by its numbers, as a reader sees them."""

import pytest
from built import visit
from headless import watched

from bisam.notebook.results import Results

pytestmark = pytest.mark.book

COLUMNS = {  # as the cells are typed, in the order of their numbers
    "p": ["<0.001", "0.004", "0.500", "1.000"],
    "difference": ["-12.50 [-13.00, -12.00]", "-0.20 [-0.40, +0.00]", "0.00 [-0.10, +0.10]", "+3.10 [+2.00, +4.20]"],
    "runs": ["9", "80", "1,015", "20,000"],
    "error": ["5.6e-09", "7.4e-05", "0.1", "2"],
    "share": ["7 %", "12.5 %", "40 %", "100 %"],
}
SHUFFLED = (2, 0, 3, 1)
SORTED = """(table, k) => new Promise(done => {
  table.addEventListener("sort-end", () => done([...table.tBodies[0].rows].map(row => row.cells[k].textContent)), {once: true});
  table.tHead.rows[0].cells[k].click();
})"""


@pytest.fixture(scope="module")
def tab(browser, address):
    context = browser.new_context()
    tab = watched(context.new_page(), address)
    rows = [{name: cells[k].replace("-", "\N{MINUS SIGN}", 1) if name == "difference" else cells[k] for name, cells in COLUMNS.items()} for k in SHUFFLED]
    markup = Results(rows, "Numbers of every form.").markup()
    tab.route("**/first_run.html", lambda route: route.fulfill(body=route.fetch().text().replace("</article>", f"{markup}</article>"), content_type="text/html"))
    visit(tab, address, "notebooks/first_run")
    yield tab
    context.close()


@pytest.mark.parametrize("name", COLUMNS)
def test_a_column_is_sorted_by_its_numbers(name, tab):
    table = tab.locator("table.bisam-results").last
    place = list(COLUMNS).index(name)
    orders = []
    for _ in range(2):
        cells = table.evaluate(SORTED, place)
        orders.append([cell.replace("\N{MINUS SIGN}", "-") for cell in cells])
    assert COLUMNS[name] in orders and COLUMNS[name][::-1] in orders, orders
