"""Reads a page: checks nesting, collects ids, attributes, text, and the cells of tables."""
import html.parser

VOID = {'meta', 'link', 'input', 'br', 'img', 'hr'}


class Page(html.parser.HTMLParser):

  def __init__(self, text):
    super().__init__()
    self.open, self.ids, self.attributes, self.tables, self.words = [], [], [], {}, []
    self.rows = None
    self.feed(text)
    self.close()
    assert not self.open

  def handle_starttag(self, tag, attrs):
    self.handle_startendtag(tag, attrs)
    if tag not in VOID:
      self.open.append(tag)

  def handle_startendtag(self, tag, attrs):
    self.attributes += [(tag, name, value) for name, value in attrs]
    self.ids += [value for name, value in attrs if name == 'id']
    if tag == 'table':
      self.rows = self.tables[dict(attrs).get('id')] = []
    elif tag == 'tr':
      self.rows.append([])
    elif tag in ('td', 'th'):
      self.rows[-1].append('')

  def handle_endtag(self, tag):
    assert self.open.pop() == tag

  def handle_data(self, data):
    if self.open and self.open[-1] != 'style':
      self.words.append(data)
    if any(tag in ('td', 'th') for tag in self.open):
      self.rows[-1][-1] += data.strip('\n')

  @property
  def text(self):
    return ' '.join(' '.join(self.words).split())
